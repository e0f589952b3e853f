// How a caller stops a call: a flag of its own, and a poll for the host's interrupts.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>

namespace specrag {

// Set from any thread; checked between batches and inside the library's computation.
class CancelFlag {
public:
    void cancel() { flag_.store(true); }
    bool cancelled() const { return flag_.load(); }
    const std::atomic<bool>& raw() const { return flag_; }

private:
    std::atomic<bool> flag_{false};
};

// One call's view: the caller's flag, and a poll that is asked at most every 50 ms.
class CallControl {
public:
    CallControl() = default;
    CallControl(std::shared_ptr<const CancelFlag> flag, std::function<bool()> interrupted)
        : flag_(std::move(flag)), interrupted_(std::move(interrupted)) {}

    bool should_stop() {
        if (stopped_) return true;
        if (flag_ && flag_->cancelled()) return stopped_ = true;
        if (interrupted_) {
            const auto now = std::chrono::steady_clock::now();
            if (now - last_poll_ >= std::chrono::milliseconds(50)) {
                last_poll_ = now;
                if (interrupted_()) return stopped_ = true;
            }
        }
        return false;
    }

private:
    std::shared_ptr<const CancelFlag> flag_;
    std::function<bool()> interrupted_;
    std::chrono::steady_clock::time_point last_poll_{};
    bool stopped_ = false;
};

}  // namespace specrag
