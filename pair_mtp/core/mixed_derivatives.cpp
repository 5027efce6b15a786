// SPDX-License-Identifier: BSD-3-Clause
#include "mixed_derivatives.hpp"

#include "contraction.hpp"
#include "function.hpp"
#include "moments.hpp"
#include "radial.hpp"
#include "simd.hpp"

#include <algorithm>
#include <cstring>

namespace mtp {
namespace {

constexpr int chunk = block * pack_width;    // neighbours that one call of the sweeps takes, one in a lane
constexpr int voigt[6][2] = {{0, 0}, {1, 1}, {2, 2}, {1, 2}, {0, 2}, {0, 1}};

template <class T> MTP_FUNCTION void add_to(double *place, const T &value, int width)
{
  if (width == pack_width) {
    T sum;
    std::memcpy(&sum, place, sizeof(T));    // not aligned
    sum += value;
    std::memcpy(place, &sum, sizeof(T));
  } else {
    alignas(64) double lane[pack_width];
    std::memcpy(lane, &value, sizeof(T));
    for (int i = 0; i < width; i++) place[i] += lane[i];
  }
}

template <class T> MTP_FUNCTION double sum_of_lanes(const T &value)
{
  alignas(64) double lane[pack_width];
  std::memcpy(lane, &value, sizeof(T));
  return ((lane[0] + lane[1]) + (lane[2] + lane[3])) + ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

// Adds a[depth][rows]^T b[depth][8] of `height` rows and n_panels tables b to where the rows' destinations point.
template <class T, int height, int n_panels>
MTP_FUNCTION void add_tile(int depth, const double *a, int a_stride, const double *const *b, double *const *destination, const Panel *panels)
{
  T sum[height][n_panels] = {};
  for (int k = 0; k < depth; k++) {
    T line[n_panels];
    for (int p = 0; p < n_panels; p++) line[p] = *reinterpret_cast<const T *>(b[p] + k * pack_width);
    for (int i = 0; i < height; i++) {
      const double factor = a[static_cast<std::ptrdiff_t>(k) * a_stride + i];
      for (int p = 0; p < n_panels; p++) sum[i][p] += line[p] * factor;
    }
  }
  for (int i = 0; i < height; i++)
    for (int p = 0; p < n_panels; p++) add_to(destination[i] + panels[p].column, sum[i][p], panels[p].n);
}

template <class T, int n_panels>
MTP_FUNCTION void add_rows(int depth, int n_rows, const double *a, int a_stride, const double *const *b, double *const *destination,
                           const Panel *panels)
{
  constexpr int height = T::n_parts == 4 ? 3 : 6;    // as many sums as there are registers for
  int row = 0;
  for (; row + height <= n_rows; row += height) add_tile<T, height, n_panels>(depth, a + row, a_stride, b, destination + row, panels);
  for (; row + 2 <= n_rows; row += 2) add_tile<T, 2, n_panels>(depth, a + row, a_stride, b, destination + row, panels);
  for (; row < n_rows; row++) add_tile<T, 1, n_panels>(depth, a + row, a_stride, b, destination + row, panels);
}

// Runs of contiguous rows of a: the three components of the neighbours' gradients, and the sums behind them
struct AddProduct {
  template <class T>
  static MTP_FUNCTION void run(int depth, int n_neighbours, int n_padded, int n_sums, const double *a, int a_stride, double *const *destination,
                               const double *table, std::size_t table_size, const Panel *panels, int n_panels)
  {
    constexpr int together = T::n_parts == 1 ? 2 : 1;
    for (int panel = 0; panel < n_panels;) {
      const int n = std::min(together, n_panels - panel);
      const double *b[2] = {table + panel * table_size, table + (panel + n - 1) * table_size};
      for (int run = 0; run < 4; run++) {
        const int first = run * n_padded, n_rows = run < 3 ? n_neighbours : n_sums;
        if (n == together) add_rows<T, together>(depth, n_rows, a + first, a_stride, b, destination + first, panels + panel);
        else add_rows<T, 1>(depth, n_rows, a + first, a_stride, b, destination + first, panels + panel);
      }
      panel += n;
    }
  }
};

// D_k of eight scalars at once, each with its own adjoint on entry
struct AdjointOfScalars {
  template <class T> static MTP_FUNCTION void run(const PlanView *plan, const Target *targets, int n_targets, const double *m, double *adjoint)
  {
    contract_adjoint<T, double>(*plan, targets, n_targets, m, reinterpret_cast<T *>(adjoint));
    expand_adjoint(*plan, reinterpret_cast<T *>(adjoint));
  }
};

// Change of all D_k along eight directions of the summed moments at once: radial function mu times sums[monomial][8]
struct Tangents {
  template <class T>
  static MTP_FUNCTION void run(const PlanView *plan, int mu, const double *sums, const double *m, const double *adjoint, double *dm, double *dadjoint)
  {
    const T *of_monomial = reinterpret_cast<const T *>(sums);
    T *change = reinterpret_cast<T *>(dm);
    for (int nu = 0; nu <= plan->highest_degree; nu++)
      for (int p = 0; p < monomials_of_degree(nu); p++, of_monomial++, change += plan->n_mu[nu])
        for (int other = 0; other < plan->n_mu[nu]; other++) change[other] = other == mu ? *of_monomial : T{};
    change = reinterpret_cast<T *>(dm);
    expand(*plan, change);
    contract_tangents<T, double>(*plan, plan->inner_targets, plan->n_inner_targets, m, change);
    adjoint_tangents<T, double>(*plan, m, adjoint, change, reinterpret_cast<T *>(dadjoint));
  }
};

}    // namespace

// -dm_k/dr_j with a neighbour in each lane, then sum_j dm_k/dr_j and sum_j r_j dm_k/dr_j. For radial coefficients also the neighbours' monomials, and
// per mu: sum_p D_p u^p, the same times the degree, and sum_p D_p du^p/du.
struct DifferentiateMoments {
  template <class T> static MTP_FUNCTION void run(MixedDerivatives *group)
  {
    MixedDerivatives &s = *group;
    const PlanView &plan = s.plan;
    const int n_padded = s.n_padded, n_packs = n_padded / pack_width, stride = s.row_stride(), n_radial = plan.n_radial;
    const T *const u = reinterpret_cast<const T *>(s.geometry.get()), *const inverse = u + 3 * n_packs, *const distance = inverse + n_packs,
                   *const f = distance + n_packs, *const df = f + n_radial * n_packs;
    T *const mono = reinterpret_cast<T *>(s.mono);
    const double *const adjoint = s.adjoints.get();
    double *const gradient = s.moment_gradient.get();
    for (int k = 0; k < plan.n_summed; k++)
      for (int i = 0; i < MixedDerivatives::n_sums; i++) gradient[static_cast<std::ptrdiff_t>(k) * stride + 3 * n_padded + i] = 0;
    T *const angular = reinterpret_cast<T *>(s.angular_store.get());
    for (int k = 0; k < 5 * n_radial * n_packs; k++) angular[k] = T{};

    for (int first = 0; first < n_packs; first += block) {
      T direction[block][3];
      for (int b = 0; b < block; b++)
        for (int i = 0; i < 3; i++) direction[b][i] = u[i * n_packs + first + b];
      monomials(plan, direction, mono);
      T *const stored = reinterpret_cast<T *>(s.monomial_store.get()) + first;
      for (int p = 0; p < plan.n_monomials; p++)
        for (int b = 0; b < block; b++) stored[p * n_packs + b] = mono[p * block + b];

      double *row = gradient;
      const double *of_moment = adjoint;
      int p = 0;
      for (int nu = 0; nu <= plan.highest_degree; nu++)
        for (int i = 0; i < monomials_of_degree(nu); i++, p++) {
          const auto &slope = s.slopes[p];
          T by_u[block][3];
          for (int b = 0; b < block; b++)
            for (int a = 0; a < 3; a++) by_u[b][a] = mono[slope.lower[a] * block + b] * slope.factor[a];
          for (int mu = 0; mu < plan.n_mu[nu]; mu++, row += stride, of_moment++) {
            T sum[3] = {}, virial[6] = {};
            for (int b = 0; b < block; b++) {
              const int at = first + b;
              const T across = f[mu * n_packs + at] * inverse[at];
              const T along = (df[mu * n_packs + at] - across * static_cast<double>(nu)) * mono[p * block + b];
              T g[3];
              for (int a = 0; a < 3; a++) {
                g[a] = direction[b][a] * along + across * by_u[b][a];
                sum[a] += g[a];
                *reinterpret_cast<T *>(row + a * n_padded + at * pack_width) = g[a] * -1.0;
              }
              for (int v = 0; v < 6; v++) virial[v] += distance[at] * direction[b][voigt[v][0]] * g[voigt[v][1]];
              if (s.linear_only) continue;
              T *const of_mu = angular + mu * 5 * n_packs + at;
              const T weighted = mono[p * block + b] * *of_moment;
              of_mu[0] += weighted;
              of_mu[n_packs] += weighted * static_cast<double>(nu);
              for (int a = 0; a < 3; a++) of_mu[(2 + a) * n_packs] += by_u[b][a] * *of_moment;
            }
            for (int a = 0; a < 3; a++) row[3 * n_padded + a] += sum_of_lanes(sum[a]);
            for (int v = 0; v < 6; v++) row[3 * n_padded + 3 + v] += sum_of_lanes(virial[v]);
          }
        }
    }
  }
};

// sums[monomial][8]: sum over the neighbours of a species of phi_beta u^p, eight beta in lanes
struct SumOfRadialBasis {
  template <class T> static MTP_FUNCTION void run(MixedDerivatives *group, int species, int first_beta, double *sums)
  {
    MixedDerivatives &s = *group;
    T *const out = reinterpret_cast<T *>(sums);
    for (int p = 0; p < s.plan.n_monomials; p++) {
      T sum = {};
      const double *const mono = s.monomial_store.get() + static_cast<std::ptrdiff_t>(p) * s.n_padded;
      for (int n = s.first_of_species[species]; n < s.first_of_species[species + 1]; n++)
        sum += *reinterpret_cast<const T *>(s.series.get() + static_cast<std::ptrdiff_t>(2 * n) * s.n_chebyshev_padded + first_beta) * mono[n];
      out[p] = sum;
    }
  }
};

// The dependence of dm_k/dr_j on the neighbour's own radial coefficients, eight beta in lanes
struct AddExplicitRadialPart {
  template <class T> static MTP_FUNCTION void run(MixedDerivatives *group)
  {
    MixedDerivatives &s = *group;
    const int n_padded = s.n_padded;
    const double *const u = s.geometry.get(), *const inverse = u + 3 * n_padded, *const distance = inverse + n_padded;
    double *const *const destination = s.destinations.data();
    for (std::size_t panel = 0; panel < s.radial_panels.size(); panel++) {
      const auto &of = s.radial_panels[panel];
      const auto [column, width] = s.panels[panel];
      const double *const angular = s.angular_store.get() + static_cast<std::ptrdiff_t>(of.mu) * 5 * n_padded;
      T sum[3] = {}, virial[6] = {};
      for (int n = s.first_of_species[of.species]; n < s.first_of_species[of.species + 1]; n++) {
        const double *const series = s.series.get() + static_cast<std::ptrdiff_t>(2 * n) * s.n_chebyshev_padded + of.first_beta;
        const T phi = *reinterpret_cast<const T *>(series), slope = *reinterpret_cast<const T *>(series + s.n_chebyshev_padded);
        T g[3];
        for (int i = 0; i < 3; i++) {
          const double direction = u[i * n_padded + n];
          const double across = (angular[(2 + i) * n_padded + n] - direction * angular[n_padded + n]) * inverse[n];
          g[i] = slope * (direction * angular[n]) + phi * across;
          sum[i] += g[i];
          add_to(destination[i * n_padded + n] + column, g[i] * -1.0, width);
        }
        for (int v = 0; v < 6; v++) virial[v] += g[voigt[v][1]] * (distance[n] * u[voigt[v][0] * n_padded + n]);
      }
      for (int i = 0; i < 3; i++) add_to(destination[3 * n_padded + i] + column, sum[i], width);
      for (int v = 0; v < 6; v++) add_to(destination[3 * n_padded + 3 + v] + column, virial[v], width);
    }
  }
};

MixedDerivatives::MixedDerivatives(const PlanView &view, bool only_linear)
    : Sites<Lane8>(view),
      linear_only(only_linear),
      n_chebyshev_padded((view.n_chebyshev + pack_width - 1) / pack_width * pack_width),
      first_of_species(static_cast<std::size_t>(view.n_species) + 1)
{
  tabulate_slopes();
  find_targets();
  if (!linear_only)
    for (int z = 0; z < plan.n_species; z++)
      for (int mu = 0; mu < plan.n_radial; mu++)
        for (int beta = 0; beta < plan.n_chebyshev; beta += pack_width) radial_panels.push_back({z, mu, beta});
  parameter_rows.require(static_cast<std::size_t>(n_active()) * pack_width);
  m.require(plan.n_moments);
  adjoints.require(plan.n_moments);
  tangent.require(static_cast<std::size_t>(plan.n_moments) * pack_width);
  sums.require(static_cast<std::size_t>(plan.n_monomials) * pack_width);
  change.require(static_cast<std::size_t>(plan.n_moments) * pack_width);
  tables.require((radial_panels.size() + scalar_panels.size()) * plan.n_summed * pack_width);
}

void MixedDerivatives::tabulate_slopes()
{
  const auto index = [](int a, int b, int c) {    // degrees below nu hold nu^2 monomials
    const int nu = a + b + c;
    return nu * nu + (c == 0 ? b : nu + 1 + b);
  };
  slopes.resize(plan.n_monomials);
  for (int nu = 0; nu <= plan.highest_degree; nu++)
    for (int c = 0; c <= 1; c++)
      for (int b = 0; b + c <= nu; b++) {
        const int a = nu - b - c;
        slopes[index(a, b, c)] = {{a > 0 ? index(a - 1, b, c) : 0, b > 0 ? index(a, b - 1, c) : 0, c > 0 ? index(a, b, 0) : 0},
                                  {static_cast<double>(a), static_cast<double>(b), static_cast<double>(c)}};
      }
}

void MixedDerivatives::find_targets()
{
  for (int first = 0; first < plan.n_scalar; first += pack_width) {
    std::vector<char> touched(plan.n_moments, 0);
    for (int alpha = first; alpha < std::min(first + pack_width, plan.n_scalar); alpha++) touched[plan.scalars[alpha]] = 1;
    ScalarPanel panel;
    for (int i = plan.n_targets - 1; i >= 0; i--) {
      const Target &target = plan.targets[i];
      if (!touched[target.t]) continue;
      panel.targets.push_back(target);
      for (int row = target.first_row; row < target.first_row + target.n_rows; row++) touched[plan.rows[row].p] = touched[plan.rows[row].q] = 1;
    }
    std::reverse(panel.targets.begin(), panel.targets.end());
    std::fill(touched.begin(), touched.begin() + plan.n_summed, 1);
    for (int i = 0; i < plan.n_expansions; i++) touched[plan.expansions[i].t] = 1;    // and lead to summed ones or to each other
    for (int k = 0; k < plan.n_moments; k++)
      if (touched[k]) panel.touched.push_back(k);
    scalar_panels.push_back(std::move(panel));
  }
}

void MixedDerivatives::prepare()
{
  parameter_gradient(parameter_rows.get());
}

// One atom's moments, adjoints and neighbours out of the lanes; neighbours beyond the last are weightless.
void MixedDerivatives::gather(int lane)
{
  for (int k = 0; k < plan.n_moments; k++) m.get()[k] = reinterpret_cast<const double *>(moments)[k * width + lane];
  if (!linear_only)
    for (int k = 0; k < plan.n_moments; k++) adjoints.get()[k] = reinterpret_cast<const double *>(adjoint)[k * width + lane];

  n_neighbours = 0;
  for (int z = 0; z < plan.n_species; z++) n_neighbours += count[z * width + lane];
  n_padded = (n_neighbours + chunk - 1) / chunk * chunk;
  const std::size_t n = n_padded;
  geometry.require((5 + 2 * static_cast<std::size_t>(plan.n_radial)) * n);
  monomial_store.require(plan.n_monomials * n);
  angular_store.require(5 * static_cast<std::size_t>(plan.n_radial) * n);
  moment_gradient.require(static_cast<std::size_t>(plan.n_summed) * row_stride());
  series.require(2 * n * n_chebyshev_padded);
  double *const u = geometry.get(), *const of_inverse = u + 3 * n, *const of_distance = of_inverse + n, *const of_f = of_distance + n,
                *const of_df = of_f + plan.n_radial * n;
  std::fill(u, u + (5 + 2 * plan.n_radial) * n, 0.0);

  const auto in_lane = [&](const Lane8 *array, std::size_t at) { return reinterpret_cast<const double *>(array + at)[lane]; };
  int to = 0;
  for (int z = 0; z < plan.n_species; z++) {
    first_of_species[z] = to;
    for (int k = 0; k < count[z * width + lane]; k++, to++) {
      const std::size_t slot = static_cast<std::size_t>(z) * capacity + k;
      for (int i = 0; i < 3; i++) u[i * n + to] = in_lane(unit, 3 * slot + i);
      of_inverse[to] = in_lane(inverse, slot);
      of_distance[to] = in_lane(distance, slot);
      for (int mu = 0; mu < plan.n_radial; mu++) {
        of_f[mu * n + to] = in_lane(f, slot * plan.n_radial + mu);
        of_df[mu * n + to] = in_lane(df, slot * plan.n_radial + mu);
      }
    }
  }
  first_of_species[plan.n_species] = to;
}

void MixedDerivatives::point_to(int lane, int index, const JacobianRows &rows)
{
  destinations.assign(row_stride(), nullptr);
  int n = 0;
  for (int z = 0; z < plan.n_species; z++)
    for (int k = 0; k < count[z * width + lane]; k++, n++) {
      const std::ptrdiff_t j = indices[(static_cast<std::size_t>(z) * capacity + k) * width + lane];
      for (int i = 0; i < 3; i++) destinations[i * n_padded + n] = rows.forces + (3 * j + i) * rows.stride;
    }
  for (int i = 0; i < 3; i++) destinations[3 * n_padded + i] = rows.forces + (3 * static_cast<std::ptrdiff_t>(index) + i) * rows.stride;
  for (int v = 0; v < 6; v++) destinations[3 * n_padded + 3 + v] = rows.virial + v * rows.stride;
}

// series[neighbour]: phi_beta, then its derivative by r
void MixedDerivatives::tabulate_radial_basis()
{
  const double slope = 2 / (plan.cutoff - plan.min_distance);
  int z = 0;
  for (int n = 0; n < n_neighbours; n++) {
    while (n >= first_of_species[z + 1]) z++;
    const double r = geometry.get()[4 * static_cast<std::ptrdiff_t>(n_padded) + n];
    double *const phi = series.get() + static_cast<std::ptrdiff_t>(2 * n) * n_chebyshev_padded, *const dphi = phi + n_chebyshev_padded;
    double smooth, dsmooth;
    cutoff_function(plan, species, z, r, &smooth, &dsmooth);
    const double held = chebyshev(plan, species, z, r, phi);
    const double xi = plan.n_chebyshev > 1 ? phi[1] : 0;
    for (int beta = 0; beta < plan.n_chebyshev; beta++)    // T'_beta by recurrence
      dphi[beta] = beta == 0 ? 0 : beta == 1 ? 1 : 2 * phi[beta - 1] + 2 * xi * dphi[beta - 1] - dphi[beta - 2];
    for (int beta = 0; beta < plan.n_chebyshev; beta++) {
      dphi[beta] = dphi[beta] * slope * held * smooth + phi[beta] * dsmooth;
      phi[beta] *= smooth;
    }
    std::fill(phi + plan.n_chebyshev, phi + n_chebyshev_padded, 0.0);
    std::fill(dphi + plan.n_chebyshev, dphi + n_chebyshev_padded, 0.0);
  }
}

// dD_k/dxi_alpha = dB_alpha/dm_k
void MixedDerivatives::differentiate_adjoint_by_linear(double *table)
{
  int first = 0;
  double *const adjoint_change = change.get();
  for (const auto &panel : scalar_panels) {
    for (int k : panel.touched) std::fill(adjoint_change + k * pack_width, adjoint_change + (k + 1) * pack_width, 0.0);
    for (int alpha = first; alpha < std::min(first + pack_width, plan.n_scalar); alpha++)
      adjoint_change[plan.scalars[alpha] * pack_width + alpha - first] += 1;
    on_best_vectors<AdjointOfScalars>(&plan, panel.targets.data(), static_cast<int>(panel.targets.size()), m.get(), adjoint_change);
    table = std::copy(adjoint_change, adjoint_change + static_cast<std::size_t>(plan.n_summed) * pack_width, table);
    first += pack_width;
  }
}

// Forward over reverse along dm_k/dc_(mu beta) = sum_j phi_beta u^k
void MixedDerivatives::differentiate_adjoint_by_radial(double *table)
{
  std::fill(tangent.get(), tangent.get() + static_cast<std::size_t>(plan.n_moments) * pack_width, 0.0);
  for (const auto &panel : radial_panels) {
    if (panel.mu == 0 || n_chebyshev_padded > pack_width) on_best_vectors<SumOfRadialBasis>(this, panel.species, panel.first_beta, sums.get());
    on_best_vectors<Tangents>(&plan, panel.mu, sums.get(), m.get(), adjoints.get(), tangent.get(), change.get());
    table = std::copy(change.get(), change.get() + static_cast<std::size_t>(plan.n_summed) * pack_width, table);
  }
}

void MixedDerivatives::add(int lane, int index, const JacobianRows &rows)
{
  gather(lane);
  point_to(lane, index, rows);
  on_best_vectors<DifferentiateMoments>(this);

  // where the columns of this atom's species stand
  const int n_radial_theta = n_radial_active(), skipped = linear_only ? place_of_active(species, n_radial_theta) - species : 0;
  panels.clear();
  for (const auto &of : radial_panels)
    panels.push_back({place_of_active(species, (of.species * plan.n_radial + of.mu) * plan.n_chebyshev + of.first_beta),
                      std::min(pack_width, plan.n_chebyshev - of.first_beta)});
  for (int first = 0; first < plan.n_scalar; first += pack_width)
    panels.push_back({place_of_active(species, n_radial_theta + 1 + first) - skipped, std::min(pack_width, plan.n_scalar - first)});

  for (int k = linear_only ? n_radial_theta : 0; k < n_active(); k++)
    rows.energy[place_of_active(species, k) - skipped] += parameter_rows.get()[k * width + lane];

  const std::size_t table_size = static_cast<std::size_t>(plan.n_summed) * pack_width;
  differentiate_adjoint_by_linear(tables.get() + radial_panels.size() * table_size);
  if (!linear_only) {
    tabulate_radial_basis();
    differentiate_adjoint_by_radial(tables.get());
    on_best_vectors<AddExplicitRadialPart>(this);
  }
  on_best_vectors<AddProduct>(plan.n_summed, n_neighbours, n_padded, n_sums, moment_gradient.get(), row_stride(), destinations.data(), tables.get(),
                              table_size, panels.data(), static_cast<int>(panels.size()));
}

}    // namespace mtp
