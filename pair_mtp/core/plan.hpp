// SPDX-License-Identifier: BSD-3-Clause
// What the kernels execute: a potential's tables in the layout that the sweeps read, compiled once after a file is read or coefficients change.
#pragma once

#include "potential.hpp"

#include <vector>

namespace mtp {

// Borrowed pointers and counts, the only thing a kernel sees. Valid as long as the Plan lives (or the device copies that it points to).
struct PlanView {
  int n_species, n_radial, n_chebyshev, n_moments, n_basic, n_products, n_scalar, n_monomials, n_parameters;
  double cutoff, min_distance, scaling;
  const double *radial_coeffs;     // [z_i][z_j][mu][beta]
  const double *species_coeffs;    // [z_i]
  const double *moment_coeffs;     // [alpha]

  // Monomials u_x^a u_y^b u_z^c of the unit vector u = (r_j - r_i) / r, in order of degree: monomial k = monomial parent[k] * u[axis[k]]
  const int *monomial_parent, *monomial_axis, *monomial_degree;
  // d monomial[k] / d u_axis = factor * monomial[lower], axis = 0, 1, 2: entries 3 k + axis
  const int *monomial_lower, *monomial_factor;

  const int *basic_mu, *basic_monomial;    // basic moment k = sum_j f_(basic_mu[k])(r) monomial[basic_monomial[k]]
  const Product *products;
  const int *scalars;    // moment of scalar alpha
};

class Plan {
 public:
  explicit Plan(const Potential &potential);
  PlanView view() const;

 private:
  PlanView counts{};
  std::vector<double> radial_coeffs, species_coeffs, moment_coeffs;
  std::vector<int> parent, axis, degree, lower, factor, basic_mu, basic_monomial, scalars;
  std::vector<Product> products;
};

}    // namespace mtp
