// SPDX-License-Identifier: BSD-3-Clause
// Extrapolation grades of several atoms at once: gamma = max_j |(b A^-1)_j|, of which an atom's row b needs only the rows of A^-1 that belong to the
// parameters of its species.
#pragma once

#include "active_set.hpp"
#include "sites.hpp"

#include <vector>

namespace mtp {

class Grader {
 public:
  Grader(const ActiveSet &set, const PlanView &plan);

  // rows: as Sites<Lane8>::parameter_gradient gives them, [n_active][pack_width]; grades: [pack_width], NaN where a row is not finite.
  void grade(int species, const double *rows, double *grades) const;

 private:
  int n_active, width;             // width: number of parameters, padded to the height of a block of the product
  std::vector<double> inverses;    // [z][n_active][width]: the active rows of A^-1
};

}    // namespace mtp
