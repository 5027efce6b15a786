// SPDX-License-Identifier: BSD-3-Clause
// Lane types: what one kernel instance computes at once. A kernel template works on `double` (one lane) or on `Pack` (eight lanes); both know
// +, -, *, / among themselves and with plain doubles.
#pragma once

namespace mtp {

constexpr int pack_width = 8;
typedef double Pack __attribute__((vector_size(pack_width * sizeof(double)), aligned(sizeof(double)), may_alias));

}    // namespace mtp
