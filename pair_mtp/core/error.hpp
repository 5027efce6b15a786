// SPDX-License-Identifier: BSD-3-Clause
// Errors of the core: what is wrong, where, and what to do. Hosts translate the kind into their own means.
#pragma once

#include <stdexcept>
#include <string>

namespace mtp {

struct Error : std::runtime_error {
  enum class Kind { format, file, argument, incompatible, numerical };
  Kind kind;
  Error(Kind k, const std::string &what) : std::runtime_error(what), kind(k) {}
};

}    // namespace mtp
