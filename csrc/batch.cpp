#include "batch.h"

namespace specrag {

void Batch::clear() {
    tokens_.clear();
    positions_.clear();
    n_sequences_.clear();
    sequence_offsets_.clear();
    sequences_.clear();
    output_.clear();
    n_outputs_ = 0;
}

void Batch::add(Token token, std::int32_t position, const std::vector<SequenceId>& sequences,
                bool output) {
    tokens_.push_back(token);
    positions_.push_back(position);
    n_sequences_.push_back(static_cast<std::int32_t>(sequences.size()));
    sequence_offsets_.push_back(sequences_.size());
    sequences_.insert(sequences_.end(), sequences.begin(), sequences.end());
    output_.push_back(output ? 1 : 0);
    n_outputs_ += output ? 1 : 0;
}

llama_batch Batch::view() {
    sequence_pointers_.resize(tokens_.size());
    for (std::size_t i = 0; i < tokens_.size(); ++i)
        sequence_pointers_[i] = sequences_.data() + sequence_offsets_[i];
    llama_batch batch{};
    batch.n_tokens = static_cast<std::int32_t>(tokens_.size());
    batch.token = tokens_.data();
    batch.pos = positions_.data();
    batch.n_seq_id = n_sequences_.data();
    batch.seq_id = sequence_pointers_.data();
    batch.logits = output_.data();
    return batch;
}

}  // namespace specrag
