// SPDX-License-Identifier: BSD-3-Clause
#include "plan.hpp"

#include "error.hpp"

#include <algorithm>
#include <array>
#include <map>

namespace mtp {

Plan::Plan(const Potential &potential) :
    radial_coeffs(potential.radial_coeffs), species_coeffs(potential.species_coeffs), moment_coeffs(potential.moment_coeffs),
    scalars(potential.basis.scalars), products(potential.basis.products)
{
  if (!potential.trained) throw Error(Error::Kind::argument, "the potential is not trained: it has no coefficients. Fit it first (`mtp fit`)");
  const Basis &basis = potential.basis;

  int highest = 0;
  for (const auto &m : basis.basic) highest = std::max(highest, m.a + m.b + m.c);
  std::map<std::array<int, 3>, int> index;
  for (int nu = 0; nu <= highest; nu++)
    for (int a = nu; a >= 0; a--)
      for (int b = nu - a; b >= 0; b--) {
        const std::array<int, 3> e{a, b, nu - a - b};
        const int k = static_cast<int>(index.size());
        index[e] = k;
        int from = 0, along = 0;
        for (int i = 0; i < 3; i++) {
          int below = 0;
          if (e[i] > 0) {
            auto less = e;
            less[i]--;
            below = from = index.at(less);
            along = i;
          }
          lower.push_back(below);
          factor.push_back(e[i]);
        }
        parent.push_back(from);
        axis.push_back(along);
        degree.push_back(nu);
      }
  for (const auto &m : basis.basic) {
    basic_mu.push_back(m.mu);
    basic_monomial.push_back(index.at({m.a, m.b, m.c}));
  }
  counts.n_species = potential.n_species;
  counts.n_radial = potential.n_radial();
  counts.n_chebyshev = potential.n_chebyshev;
  counts.n_moments = basis.n_moments;
  counts.n_basic = basis.n_basic();
  counts.n_products = static_cast<int>(products.size());
  counts.n_scalar = basis.n_scalar();
  counts.n_monomials = static_cast<int>(index.size());
  counts.n_parameters = potential.n_parameters();
  counts.cutoff = potential.cutoff;
  counts.min_distance = potential.min_distance;
  counts.scaling = potential.scaling;
}

PlanView Plan::view() const
{
  PlanView v = counts;
  v.radial_coeffs = radial_coeffs.data();
  v.species_coeffs = species_coeffs.data();
  v.moment_coeffs = moment_coeffs.data();
  v.monomial_parent = parent.data();
  v.monomial_axis = axis.data();
  v.monomial_degree = degree.data();
  v.monomial_lower = lower.data();
  v.monomial_factor = factor.data();
  v.basic_mu = basic_mu.data();
  v.basic_monomial = basic_monomial.data();
  v.products = products.data();
  v.scalars = scalars.data();
  return v;
}

}    // namespace mtp
