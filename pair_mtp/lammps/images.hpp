// SPDX-License-Identifier: GPL-2.0-or-later
// The periodic images of a vector that are no longer than a radius, which may exceed the box.
#pragma once

#include "../core/function.hpp"

#include "domain.h"

#include <algorithm>
#include <cmath>

namespace LAMMPS_NS {

class Images {
 public:
  Images(const Domain &box, double radius) : square(radius * radius)
  {
    std::copy(box.h, box.h + 6, h);
    std::copy(box.h_inv, box.h_inv + 6, inverse);
    const double *const g = inverse;    // as LAMMPS stores both: xx yy zz yz xz xy
    const double rows[3] = {std::sqrt(g[0] * g[0] + g[5] * g[5] + g[4] * g[4]), std::sqrt(g[1] * g[1] + g[3] * g[3]), std::fabs(g[2])};
    for (int a = 0; a < 3; a++) reach[a] = box.periodicity[a] ? radius * rows[a] + 1e-9 : 0;    // 1e-9: rounding must not lose an image
    for (int a = 0; a < 3; a++) periodic[a] = box.periodicity[a];
  }

  // visit(image) for each
  template <class Visit> MTP_FUNCTION void of(const double *vector, const Visit &visit) const
  {
    const double *const g = inverse;
    const double fraction[3] = {g[0] * vector[0] + g[5] * vector[1] + g[4] * vector[2], g[1] * vector[1] + g[3] * vector[2], g[2] * vector[2]};
    int first[3] = {0, 0, 0}, last[3] = {0, 0, 0};
    for (int a = 0; a < 3; a++) {
      if (!periodic[a]) continue;
      first[a] = static_cast<int>(std::ceil(-fraction[a] - reach[a]));
      last[a] = static_cast<int>(std::floor(-fraction[a] + reach[a]));
    }
    for (int i = first[0]; i <= last[0]; i++)
      for (int j = first[1]; j <= last[1]; j++)
        for (int k = first[2]; k <= last[2]; k++) {
          const double image[3] = {vector[0] + i * h[0] + j * h[5] + k * h[4], vector[1] + j * h[1] + k * h[3], vector[2] + k * h[2]};
          if (image[0] * image[0] + image[1] * image[1] + image[2] * image[2] <= square) visit(image);
        }
  }

  MTP_FUNCTION bool any(const double *vector) const
  {
    bool found = false;
    of(vector, [&](const double *) { found = true; });
    return found;
  }

 private:
  double h[6], inverse[6], square, reach[3];
  bool periodic[3];
};

}    // namespace LAMMPS_NS
