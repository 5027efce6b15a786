// SPDX-License-Identifier: BSD-3-Clause
#include "grader.hpp"

#include "function.hpp"
#include "simd.hpp"

#include <cstring>

namespace mtp {
namespace {

constexpr int height = 8;

MTP_CLONES void largest_elements(int n_active, int width, const double *inverse, const Pack *row, Pack *largest)
{
  Pack most = {}, poison = {};
  for (int first = 0; first < width; first += height) {
    Pack sum[height] = {};
    for (int k = 0; k < n_active; k++) {
      const Pack b = row[k];
      const double *factor = inverse + static_cast<long>(k) * width + first;
      for (int i = 0; i < height; i++) sum[i] += b * factor[i];
    }
    for (int i = 0; i < height; i++) {
      const Pack size = sum[i] < 0.0 ? -sum[i] : sum[i];
      most = size > most ? size : most;
      poison += sum[i] * 0.0;    // NaN, where it is not finite, is kept
    }
  }
  *largest = most + poison;
}

}    // namespace

Grader::Grader(const ActiveSet &set, const PlanView &plan)
{
  const Sites<double> sites(plan);
  n_active = sites.n_active();
  width = (set.n + height - 1) / height * height;
  inverses.assign(static_cast<std::size_t>(plan.n_species) * n_active * width, 0.0);
  for (int z = 0; z < plan.n_species; z++)
    for (int k = 0; k < n_active; k++)
      for (int j = 0; j < set.n; j++)
        inverses[(static_cast<std::size_t>(z) * n_active + k) * width + j] = set.inverse_transposed[static_cast<std::size_t>(j) * set.n + sites.place_of_active(z, k)];
}

void Grader::grade(int species, const double *rows, double *grades) const
{
  Pack largest;
  largest_elements(n_active, width, &inverses[static_cast<std::size_t>(species) * n_active * width], reinterpret_cast<const Pack *>(rows), &largest);
  std::memcpy(grades, &largest, sizeof largest);
}

}    // namespace mtp
