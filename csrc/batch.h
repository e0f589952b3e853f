// The only owner of a batch of the library: tokens with positions, sequences and output flags.
#pragma once

#include <cstddef>
#include <vector>

#include "llama.h"
#include "types.h"

namespace specrag {

using SequenceId = std::int32_t;

class Batch {
public:
    void clear();
    // A token may belong to several sequences: it is computed once for all of them.
    void add(Token token, std::int32_t position, const std::vector<SequenceId>& sequences,
             bool output);

    std::size_t size() const { return tokens_.size(); }
    std::size_t n_outputs() const { return n_outputs_; }
    bool is_output(std::size_t i) const { return output_[i] != 0; }

    // Valid until the next change of this object.
    llama_batch view();

private:
    std::vector<Token> tokens_;
    std::vector<llama_pos> positions_;
    std::vector<std::int32_t> n_sequences_;
    std::vector<std::size_t> sequence_offsets_;
    std::vector<SequenceId> sequences_;
    std::vector<SequenceId*> sequence_pointers_;
    std::vector<std::int8_t> output_;
    std::size_t n_outputs_ = 0;
};

}  // namespace specrag
