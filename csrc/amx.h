// Keeps the library from its kernels for Intel AMX, which crash as it is usually compiled.
#pragma once

#include <string>

namespace specrag {

// GCC takes the library's tile configuration for a dead store (ggml-org/llama.cpp, pull request
// 26954), and the first product on tiles then ends the process with an illegal instruction. So the
// library is made to choose its kernels while the system refuses AMX to this process; it then takes
// those for AVX-512. SPECRAG_AMX=1 leaves it the choice, for a library compiled by another
// compiler. Called once, before a model is loaded; does nothing where the library has no such
// kernels.
void keep_amx_off();

// Whether weights must stay as they are in the file: the library would lay them out for AMX
// unasked, as another part of this process had asked the system for it before.
bool must_avoid_amx();

// "absent" (not compiled in), "off" or "on".
std::string amx_state();

}  // namespace specrag
