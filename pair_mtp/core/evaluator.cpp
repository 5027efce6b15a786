// SPDX-License-Identifier: BSD-3-Clause
#include "evaluator.hpp"

#include "adjoint.hpp"
#include "contraction.hpp"
#include "error.hpp"
#include "function.hpp"
#include "moments.hpp"
#include "radial.hpp"
#include "simd.hpp"

#include <algorithm>
#include <cmath>

namespace mtp {
namespace {

constexpr double same_place = 1e-6;    // Angstrom: closer, the direction from one atom to the other is rounding error

// c[rows][width] = a[depth][rows]^T b[depth][width] for a width that is a multiple of pack_width. b is kept narrow enough for the cache.
MTP_CLONES void multiply_transposed(int rows, int depth, int width, const double *a, const double *b, double *c)
{
  constexpr int height = 6;
  for (int column = 0; column < width; column += pack_width)
    for (int row = 0; row < rows; row += height) {
      Pack sum[height] = {};
      const int n = std::min(height, rows - row);
      if (n == height) {
        for (int k = 0; k < depth; k++) {
          const Pack line = *reinterpret_cast<const Pack *>(b + static_cast<long>(k) * width + column);
          const double *factor = a + static_cast<long>(k) * rows + row;
          for (int i = 0; i < height; i++) sum[i] += line * factor[i];
        }
      } else {
        for (int k = 0; k < depth; k++) {
          const Pack line = *reinterpret_cast<const Pack *>(b + static_cast<long>(k) * width + column);
          const double *factor = a + static_cast<long>(k) * rows + row;
          for (int i = 0; i < n; i++) sum[i] += line * factor[i];
        }
      }
      for (int i = 0; i < n; i++) *reinterpret_cast<Pack *>(c + static_cast<long>(row + i) * width + column) = sum[i];
    }
}

MTP_CLONES void adjoint_of_scalars(const PlanView &plan, const double *m, Pack *adjoint)
{
  contract_adjoint<Pack, double>(plan, m, adjoint);
}

MTP_CLONES void tangents(const PlanView &plan, const double *m, const double *adjoint, Pack *dm, Pack *dadjoint)
{
  contract_tangent<Pack, double>(plan, m, adjoint, dm, dadjoint);
}

// n packs of zeros in a buffer
Pack *zero_packs(std::vector<double> &buffer, int n)
{
  buffer.assign(static_cast<std::size_t>(n) * pack_width, 0.0);
  return reinterpret_cast<Pack *>(buffer.data());
}

int padded(int n)
{
  return (n + pack_width - 1) / pack_width * pack_width;
}

}    // namespace

void Evaluator::place_neighbours(const Neighbourhood &atom)
{
  const double cutoff_squared = plan.cutoff * plan.cutoff;
  inside.clear();
  distance.clear();
  unit.clear();
  for (int j = 0; j < atom.n_neighbours; j++) {
    const double *v = atom.vectors + 3 * static_cast<long>(j);
    const double squared = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    if (squared >= cutoff_squared) continue;
    if (!(squared > same_place * same_place)) throw Error(Error::Kind::numerical, "two atoms are at the same place, or a position is NaN (neighbour " + std::to_string(j) + ")");
    const double r = std::sqrt(squared);
    inside.push_back(j);
    distance.push_back(r);
    for (int i = 0; i < 3; i++) unit.push_back(v[i] / r);
  }
  n_inside = static_cast<int>(inside.size());
  phi.resize(static_cast<std::size_t>(n_inside) * plan.n_chebyshev);
  dphi.resize(phi.size());
  f.resize(static_cast<std::size_t>(n_inside) * plan.n_radial);
  df.resize(f.size());
  mono.resize(static_cast<std::size_t>(n_inside) * plan.n_monomials);
}

double Evaluator::energy(const Neighbourhood &atom, double *gradient)
{
  place_neighbours(atom);
  moments.assign(plan.n_moments, 0.0);
  value.resize(plan.n_monomials);
  slope.resize(plan.n_monomials);
  for (int n = 0; n < n_inside; n++) {
    double *phi_n = &phi[static_cast<std::size_t>(n) * plan.n_chebyshev], *dphi_n = &dphi[static_cast<std::size_t>(n) * plan.n_chebyshev];
    double *f_n = &f[static_cast<std::size_t>(n) * plan.n_radial], *df_n = &df[static_cast<std::size_t>(n) * plan.n_radial];
    double *mono_n = &mono[static_cast<std::size_t>(n) * plan.n_monomials];
    chebyshev(plan, distance[n], phi_n, dphi_n);
    radial_functions(plan, pair_coeffs(plan, atom.species, atom.neighbour_species[inside[n]]), phi_n, dphi_n, f_n, df_n);
    monomials(plan, &unit[3 * n], mono_n);
    add_to_moments(plan, f_n, mono_n, moments.data());
  }
  contract(plan, moments.data());
  adjoint.assign(plan.n_moments, 0.0);
  for (int alpha = 0; alpha < plan.n_scalar; alpha++) adjoint[plan.scalars[alpha]] += plan.moment_coeffs[alpha];
  contract_adjoint(plan, moments.data(), adjoint.data());

  std::fill(gradient, gradient + 3 * static_cast<long>(atom.n_neighbours), 0.0);
  for (int n = 0; n < n_inside; n++)
    neighbour_gradient(plan, distance[n], &unit[3 * n], &f[static_cast<std::size_t>(n) * plan.n_radial], &df[static_cast<std::size_t>(n) * plan.n_radial],
                       &mono[static_cast<std::size_t>(n) * plan.n_monomials], adjoint.data(), value.data(), slope.data(), gradient + 3 * static_cast<long>(inside[n]));
  return plan.species_coeffs[atom.species] + scalar_sum(plan, moments.data());
}

void Evaluator::parameter_gradient(const Neighbourhood &atom, double *row)
{
  std::fill(row, row + plan.n_parameters, 0.0);
  angular.resize(plan.n_radial);
  for (int n = 0; n < n_inside; n++) {
    angular_parts(plan, &mono[static_cast<std::size_t>(n) * plan.n_monomials], adjoint.data(), angular.data());
    const double *phi_n = &phi[static_cast<std::size_t>(n) * plan.n_chebyshev];
    double *out = row + (pair_coeffs(plan, atom.species, atom.neighbour_species[inside[n]]) - plan.radial_coeffs);
    for (int mu = 0; mu < plan.n_radial; mu++)
      for (int beta = 0; beta < plan.n_chebyshev; beta++) *out++ += angular[mu] * phi_n[beta];
  }
  row[first_moment() - plan.n_species + atom.species] = 1;
  for (int alpha = 0; alpha < plan.n_scalar; alpha++) row[first_moment() + alpha] = moments[plan.scalars[alpha]];
}

// The columns of the radial coefficients in dD_k/dtheta: forward over reverse along dm_k/dc_(mu beta) = sum_j phi_beta u^k.
void Evaluator::differentiate_adjoint_by_radial(const Neighbourhood &atom, int width)
{
  Pack *dm = zero_packs(tangent, plan.n_moments), *dD = zero_packs(adjoint_tangent, plan.n_moments);
  for (int z = 0; z < plan.n_species; z++)
    for (int first = 0; first < plan.n_chebyshev; first += pack_width) {
      const int lanes = std::min(pack_width, plan.n_chebyshev - first);
      Pack *moment_sums = zero_packs(sums, plan.n_monomials);    // the same for every mu
      for (int n = 0; n < n_inside; n++) {
        if (atom.neighbour_species[inside[n]] != z) continue;
        Pack radial = {};
        for (int lane = 0; lane < lanes; lane++) radial[lane] = phi[static_cast<std::size_t>(n) * plan.n_chebyshev + first + lane];
        for (int p = 0; p < plan.n_monomials; p++) moment_sums[p] += radial * mono[static_cast<std::size_t>(n) * plan.n_monomials + p];
      }
      for (int mu = 0; mu < plan.n_radial; mu++) {
        for (int k = 0; k < plan.n_basic; k++) dm[k] = plan.basic_mu[k] == mu ? moment_sums[plan.basic_monomial[k]] : Pack{};
        tangents(plan, moments.data(), adjoint.data(), dm, dD);
        const int column = (z * plan.n_radial + mu) * plan.n_chebyshev + first;
        for (int k = 0; k < plan.n_basic; k++)
          for (int lane = 0; lane < lanes; lane++) adjoint_by_parameter[static_cast<std::size_t>(k) * width + column + lane] = dD[k][lane];
      }
    }
}

// The dependence of dm_k/dr_j on the neighbour's own radial coefficients.
void Evaluator::add_explicit_radial_part(const Neighbourhood &atom, int width)
{
  for (int n = 0; n < n_inside; n++) {
    const double *phi_n = &phi[static_cast<std::size_t>(n) * plan.n_chebyshev], *dphi_n = &dphi[static_cast<std::size_t>(n) * plan.n_chebyshev];
    const double *mono_n = &mono[static_cast<std::size_t>(n) * plan.n_monomials], *u = &unit[3 * n];
    const int column = atom.neighbour_species[inside[n]] * plan.n_radial * plan.n_chebyshev;
    for (int mu = 0; mu < plan.n_radial; mu++) {
      double sum = 0, radial = 0, g[3] = {};    // of D_k u^k, of degree D_k u^k, of D_k du^k/du
      for (int k = 0; k < plan.n_basic; k++) {
        if (plan.basic_mu[k] != mu) continue;
        const int p = plan.basic_monomial[k];
        sum += adjoint[k] * mono_n[p];
        radial += adjoint[k] * mono_n[p] * plan.monomial_degree[p];
        for (int i = 0; i < 3; i++) g[i] += adjoint[k] * plan.monomial_factor[3 * p + i] * mono_n[plan.monomial_lower[3 * p + i]];
      }
      for (int beta = 0; beta < plan.n_chebyshev; beta++) {
        const double over_r = phi_n[beta] / distance[n];
        for (int i = 0; i < 3; i++)
          padded_row[static_cast<std::size_t>(3 * n + i) * width + column + mu * plan.n_chebyshev + beta] +=
              u[i] * (sum * dphi_n[beta] - radial * over_r) + g[i] * over_r;
      }
    }
  }
}

// With D_k = dV/dm_k, dV/dr_j = sum_k D_k dm_k/dr_j, hence for a parameter theta
//   d^2 V/(dtheta dr_j) = sum_k (dD_k/dtheta) dm_k/dr_j + sum_k D_k d^2 m_k/(dtheta dr_j).
// The first sum is one matrix product over all parameters; the second exists for radial coefficients only and is local to a neighbour.
void Evaluator::mixed_gradient(const Neighbourhood &atom, bool linear_only, double *mixed)
{
  const int n_radial_theta = linear_only ? 0 : n_radial_active();
  const int n_theta = n_radial_theta + plan.n_scalar, width = padded(n_theta), n_rows = 3 * n_inside;

  // dD_k/dtheta: rows k, columns theta
  adjoint_by_parameter.assign(static_cast<std::size_t>(plan.n_basic) * width, 0.0);
  for (int first = 0; first < plan.n_scalar; first += pack_width) {
    const int lanes = std::min(pack_width, plan.n_scalar - first);
    Pack *dD = zero_packs(adjoint_tangent, plan.n_moments);
    for (int lane = 0; lane < lanes; lane++) dD[plan.scalars[first + lane]][lane] += 1;
    adjoint_of_scalars(plan, moments.data(), dD);
    for (int k = 0; k < plan.n_basic; k++)
      for (int lane = 0; lane < lanes; lane++) adjoint_by_parameter[static_cast<std::size_t>(k) * width + n_radial_theta + first + lane] = dD[k][lane];
  }
  if (!linear_only) differentiate_adjoint_by_radial(atom, width);

  // dm_k/dr_j: rows k, columns (j, xyz)
  moment_gradient.resize(static_cast<std::size_t>(plan.n_basic) * n_rows);
  for (int n = 0; n < n_inside; n++) {
    const double *u = &unit[3 * n], *mono_n = &mono[static_cast<std::size_t>(n) * plan.n_monomials];
    const double inverse = 1 / distance[n];
    for (int k = 0; k < plan.n_basic; k++) {
      const int p = plan.basic_monomial[k];
      const double f_k = f[static_cast<std::size_t>(n) * plan.n_radial + plan.basic_mu[k]], df_k = df[static_cast<std::size_t>(n) * plan.n_radial + plan.basic_mu[k]];
      const double along = (df_k - f_k * inverse * plan.monomial_degree[p]) * mono_n[p];
      for (int i = 0; i < 3; i++)
        moment_gradient[static_cast<std::size_t>(k) * n_rows + 3 * n + i] =
            u[i] * along + f_k * inverse * plan.monomial_factor[3 * p + i] * mono_n[plan.monomial_lower[3 * p + i]];
    }
  }
  padded_row.resize(static_cast<std::size_t>(n_rows) * width);
  multiply_transposed(n_rows, plan.n_basic, width, moment_gradient.data(), adjoint_by_parameter.data(), padded_row.data());

  if (!linear_only) add_explicit_radial_part(atom, width);

  std::fill(mixed, mixed + 3 * static_cast<long>(atom.n_neighbours) * n_theta, 0.0);
  for (int n = 0; n < n_inside; n++)
    for (int i = 0; i < 3; i++) {
      const double *from = &padded_row[static_cast<std::size_t>(3 * n + i) * width];
      std::copy(from, from + n_theta, mixed + (3 * static_cast<long>(inside[n]) + i) * n_theta);
    }
}

}    // namespace mtp
