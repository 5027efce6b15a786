// SPDX-License-Identifier: BSD-3-Clause
#include "mixed_derivatives.hpp"

#include "contraction.hpp"
#include "function.hpp"
#include "moments.hpp"
#include "radial.hpp"
#include "simd.hpp"

#include <algorithm>

namespace mtp {
namespace {

// c[rows][width] = a[depth][rows]^T b[depth][width] for a width that is a multiple of pack_width
struct MultiplyTransposed {
  template <class T> static MTP_FUNCTION void run(int rows, int depth, int width, const double *a, const double *b, double *c)
  {
    constexpr int height = 6;
    for (int column = 0; column < width; column += pack_width)
      for (int row = 0; row < rows; row += height) {
        T sum[height] = {};
        const int n = std::min(height, rows - row);
        const double *line = b + column, *factor = a + row;
        if (n == height)
          for (int k = 0; k < depth; k++, line += width, factor += rows)
            for (int i = 0; i < height; i++) sum[i] += *reinterpret_cast<const T *>(line) * factor[i];
        else
          for (int k = 0; k < depth; k++, line += width, factor += rows)
            for (int i = 0; i < n; i++) sum[i] += *reinterpret_cast<const T *>(line) * factor[i];
        for (int i = 0; i < n; i++) *reinterpret_cast<T *>(c + static_cast<long>(row + i) * width + column) = sum[i];
      }
  }
};

// D_k of eight scalars at once, each with its own adjoint on entry
struct AdjointOfScalars {
  template <class T> static MTP_FUNCTION void run(const PlanView *plan, const double *m, double *adjoint)
  {
    contract_adjoint<T, double>(*plan, plan->targets, plan->n_targets, m, reinterpret_cast<T *>(adjoint));
    expand_adjoint(*plan, reinterpret_cast<T *>(adjoint));
  }
};

// Change of all D_k along eight directions of the summed moments at once
struct Tangents {
  template <class T> static MTP_FUNCTION void run(const PlanView *plan, const double *m, const double *adjoint, double *dm, double *dadjoint)
  {
    contract_tangent<T, double>(*plan, m, adjoint, reinterpret_cast<T *>(dm), reinterpret_cast<T *>(dadjoint));
  }
};

// n times eight zeros
double *zero_packs(Scratch<double> &buffer, int n)
{
  const std::size_t size = static_cast<std::size_t>(n) * pack_width;
  buffer.require(size);
  std::fill(buffer.get(), buffer.get() + size, 0.0);
  return buffer.get();
}

// Calls action(k, mu, p, degree) for every summed moment: monomial p, radial function mu.
template <class Action> void for_each_summed_moment(const PlanView &plan, const Action &action)
{
  int k = 0, p = 0;
  for (int nu = 0; nu <= plan.highest_degree; nu++)
    for (int i = 0; i < monomials_of_degree(nu); i++, p++)
      for (int mu = 0; mu < plan.n_mu[nu]; mu++, k++) action(k, mu, p, nu);
}

// Calls action(p, lower, axis, factor) for the terms of d u^p / du: factor u^lower along axis.
template <class Action> void for_each_monomial_derivative(const PlanView &plan, const Action &action)
{
  const auto index = [](int a, int b, int c) {    // degrees below nu hold nu^2 monomials
    const int nu = a + b + c;
    return nu * nu + (c == 0 ? b : nu + 1 + b);
  };
  for (int nu = 1; nu <= plan.highest_degree; nu++)
    for (int c = 0; c <= 1; c++)
      for (int b = 0; b + c <= nu; b++) {
        const int a = nu - b - c, p = index(a, b, c);
        if (a > 0) action(p, index(a - 1, b, c), 0, a);
        if (b > 0) action(p, index(a, b - 1, c), 1, b);
        if (c > 0) action(p, index(a, b, 0), 2, 1);
      }
}

}    // namespace

void MixedDerivatives::tabulate_monomials()
{
  slots.clear();
  neighbour_species.clear();
  for (int z = 0; z < plan.n_species; z++)
    for (int n = 0; n < count[z]; n++) {
      slots.push_back(static_cast<std::size_t>(z) * capacity + n);
      neighbour_species.push_back(z);
    }
  n_neighbours = static_cast<int>(slots.size());
  monomial_store.require(static_cast<std::size_t>(n_neighbours) * plan.n_monomials);
  for (int n = 0; n < n_neighbours; n++) {
    double u[block][3];
    for (auto &copy : u) std::copy(unit + 3 * slots[n], unit + 3 * slots[n] + 3, copy);
    monomials(plan, u, mono);
    double *out = monomial_store.get() + static_cast<std::size_t>(n) * plan.n_monomials;
    for (int p = 0; p < plan.n_monomials; p++) out[p] = mono[p * block];
  }
}

void MixedDerivatives::compute(bool linear_only, Scratch<double> &mixed)
{
  tabulate_monomials();
  // the adjoints of all moments: the sweep for the energy leaves out those that only the energy reads
  std::fill(adjoint, adjoint + plan.n_moments, 0.0);
  for (int alpha = 0; alpha < plan.n_scalar; alpha++) adjoint[plan.scalars[alpha]] += plan.moment_coeffs[alpha];
  contract_adjoint<double, double>(plan, plan.targets, plan.n_targets, moments, adjoint);
  expand_adjoint(plan, adjoint);

  const int n_radial_theta = linear_only ? 0 : n_radial_active(), n_theta = n_parameters(linear_only);
  const int stride = (n_theta + pack_width - 1) / pack_width * pack_width, n_rows = 3 * n_neighbours;
  const std::size_t table = static_cast<std::size_t>(plan.n_summed) * stride;
  adjoint_by_parameter.require(table);
  std::fill(adjoint_by_parameter.get(), adjoint_by_parameter.get() + table, 0.0);
  if (!linear_only) differentiate_adjoint_by_radial(stride);
  differentiate_adjoint_by_linear(n_radial_theta + 1, stride);
  differentiate_moments();
  padded.require(static_cast<std::size_t>(n_rows) * stride);
  on_best_vectors<MultiplyTransposed>(n_rows, plan.n_summed, stride, moment_gradient.get(), adjoint_by_parameter.get(), padded.get());
  if (!linear_only) add_explicit_radial_part(stride);

  mixed.require(static_cast<std::size_t>(n_rows) * n_theta);
  for (int row = 0; row < n_rows; row++) {
    const double *from = padded.get() + static_cast<std::size_t>(row) * stride;
    std::copy(from, from + n_theta, mixed.get() + static_cast<std::size_t>(row) * n_theta);
  }
}

// dD_k/dxi_alpha = dB_alpha/dm_k, several alpha at a time
void MixedDerivatives::differentiate_adjoint_by_linear(int first_column, int stride)
{
  for (int first = 0; first < plan.n_scalar; first += pack_width) {
    const int n = std::min(pack_width, plan.n_scalar - first);
    double *dD = zero_packs(adjoint_tangent, plan.n_moments);
    for (int lane = 0; lane < n; lane++) dD[plan.scalars[first + lane] * pack_width + lane] += 1;
    on_best_vectors<AdjointOfScalars>(&plan, moments, dD);
    for (int k = 0; k < plan.n_summed; k++)
      for (int lane = 0; lane < n; lane++)
        adjoint_by_parameter.get()[static_cast<std::size_t>(k) * stride + first_column + first + lane] = dD[k * pack_width + lane];
  }
}

// Forward over reverse along dm_k/dc_(mu beta) = sum_j phi_beta u^k, several beta at a time
void MixedDerivatives::differentiate_adjoint_by_radial(int stride)
{
  std::vector<double> t(plan.n_chebyshev);
  double *dm = zero_packs(tangent, plan.n_moments), *dD = zero_packs(adjoint_tangent, plan.n_moments);
  for (int z = 0; z < plan.n_species; z++)
    for (int first = 0; first < plan.n_chebyshev; first += pack_width) {
      const int n_lanes = std::min(pack_width, plan.n_chebyshev - first);
      double *moment_sums = zero_packs(sums, plan.n_monomials);    // the same for every mu
      for (int n = 0; n < n_neighbours; n++) {
        if (neighbour_species[n] != z) continue;
        double smooth, dsmooth;
        cutoff_function(plan, distance[slots[n]], &smooth, &dsmooth);
        chebyshev(plan, distance[slots[n]], t.data());
        for (int p = 0; p < plan.n_monomials; p++)
          for (int lane = 0; lane < n_lanes; lane++) moment_sums[p * pack_width + lane] += t[first + lane] * smooth * mono_of(n)[p];
      }
      for (int mu = 0; mu < plan.n_radial; mu++) {
        for_each_summed_moment(plan, [&](int k, int of, int p, int) {
          for (int lane = 0; lane < pack_width; lane++) dm[k * pack_width + lane] = of == mu ? moment_sums[p * pack_width + lane] : 0.0;
        });
        on_best_vectors<Tangents>(&plan, moments, adjoint, dm, dD);
        const int column = (z * plan.n_radial + mu) * plan.n_chebyshev + first;
        for (int k = 0; k < plan.n_summed; k++)
          for (int lane = 0; lane < n_lanes; lane++)
            adjoint_by_parameter.get()[static_cast<std::size_t>(k) * stride + column + lane] = dD[k * pack_width + lane];
      }
    }
}

// dm_k/dr_j: rows k, columns (j, xyz)
void MixedDerivatives::differentiate_moments()
{
  const int n_rows = 3 * n_neighbours;
  moment_gradient.require(static_cast<std::size_t>(plan.n_summed) * n_rows);
  std::vector<double> by_u(3 * static_cast<std::size_t>(plan.n_monomials));
  for (int n = 0; n < n_neighbours; n++) {
    const double *u = unit + 3 * slots[n], *mono_n = mono_of(n), *f_n = f + slots[n] * plan.n_radial, *df_n = df + slots[n] * plan.n_radial;
    const double over_r = inverse[slots[n]];
    std::fill(by_u.begin(), by_u.end(), 0.0);
    for_each_monomial_derivative(plan, [&](int p, int lower, int axis, int factor) { by_u[3 * p + axis] = factor * mono_n[lower]; });
    for_each_summed_moment(plan, [&](int k, int mu, int p, int degree) {
      const double along = (df_n[mu] - f_n[mu] * over_r * degree) * mono_n[p];
      double *out = moment_gradient.get() + static_cast<std::size_t>(k) * n_rows + 3 * n;
      for (int i = 0; i < 3; i++) out[i] = u[i] * along + f_n[mu] * over_r * by_u[3 * p + i];
    });
  }
}

// The dependence of dm_k/dr_j on the neighbour's own radial coefficients
void MixedDerivatives::add_explicit_radial_part(int stride)
{
  std::vector<double> t(plan.n_chebyshev), dt(plan.n_chebyshev), by_u(3 * static_cast<std::size_t>(plan.n_monomials));
  std::vector<double> sum(plan.n_radial), radial(plan.n_radial), of_u(3 * static_cast<std::size_t>(plan.n_radial));
  const double slope = 2 / (plan.cutoff - plan.min_distance);
  for (int n = 0; n < n_neighbours; n++) {
    const double *mono_n = mono_of(n), *u = unit + 3 * slots[n];
    const double r = distance[slots[n]], over_r = inverse[slots[n]];
    double smooth, dsmooth;
    cutoff_function(plan, r, &smooth, &dsmooth);
    chebyshev(plan, r, t.data());
    const double xi = plan.n_chebyshev > 1 ? t[1] : 0;
    for (int beta = 0; beta < plan.n_chebyshev; beta++)    // T'_beta by recurrence
      dt[beta] = beta == 0 ? 0 : beta == 1 ? 1 : 2 * t[beta - 1] + 2 * xi * dt[beta - 1] - dt[beta - 2];

    std::fill(by_u.begin(), by_u.end(), 0.0);
    std::fill(sum.begin(), sum.end(), 0.0);
    std::fill(radial.begin(), radial.end(), 0.0);
    std::fill(of_u.begin(), of_u.end(), 0.0);
    for_each_monomial_derivative(plan, [&](int p, int lower, int axis, int factor) { by_u[3 * p + axis] = factor * mono_n[lower]; });
    for_each_summed_moment(plan, [&](int k, int mu, int p, int degree) {
      sum[mu] += adjoint[k] * mono_n[p];
      radial[mu] += adjoint[k] * mono_n[p] * degree;
      for (int i = 0; i < 3; i++) of_u[3 * mu + i] += adjoint[k] * by_u[3 * p + i];
    });
    for (int mu = 0; mu < plan.n_radial; mu++)
      for (int beta = 0; beta < plan.n_chebyshev; beta++) {
        const double phi = t[beta] * smooth, dphi = dt[beta] * slope * smooth + t[beta] * dsmooth;
        const int column = (neighbour_species[n] * plan.n_radial + mu) * plan.n_chebyshev + beta;
        for (int i = 0; i < 3; i++)
          padded.get()[static_cast<std::size_t>(3 * n + i) * stride + column] +=
              u[i] * (sum[mu] * dphi - radial[mu] * phi * over_r) + of_u[3 * mu + i] * phi * over_r;
      }
  }
}

}    // namespace mtp
