// SPDX-License-Identifier: BSD-3-Clause
#include "plan.hpp"

#include "error.hpp"

#include <algorithm>
#include <array>
#include <functional>
#include <map>
#include <utility>

namespace mtp {
namespace {

// Sorts a table by depth, and finds where each depth begins; order within a depth stays.
template <class Entry, class Depth> std::vector<int> sort_by_depth(std::vector<Entry> &table, const Depth &depth)
{
  std::stable_sort(table.begin(), table.end(), [&](const Entry &l, const Entry &r) { return depth(l) < depth(r); });
  std::vector<int> first = {0};
  for (std::size_t i = 1; i < table.size(); i++)
    if (depth(table[i]) != depth(table[i - 1])) first.push_back(static_cast<int>(i));
  if (!table.empty()) first.push_back(static_cast<int>(table.size()));
  return first;
}

// Rows of the entries of a table, from one place to another: see Plan::interleaved()
template <class Entry>
void interleave(int lanes, const std::vector<int> &levels, std::vector<Entry> &table, int Entry::*first, int Entry::*n_rows,
                const std::vector<Row> &from, std::vector<Row> &to)
{
  for (std::size_t level = 0; level + 1 < levels.size(); level++)
    for (int begin = levels[level]; begin < levels[level + 1]; begin += lanes) {
      const int end = std::min(begin + lanes, levels[level + 1]), base = static_cast<int>(to.size());
      int longest = 0;
      for (int i = begin; i < end; i++) longest = std::max(longest, table[i].*n_rows);
      to.resize(to.size() + static_cast<std::size_t>(longest) * lanes);
      for (int i = begin; i < end; i++) {
        const int of_entry = base + i - begin;
        for (int k = 0; k < table[i].*n_rows; k++) to[of_entry + k * lanes] = from[table[i].*first + k];
        table[i].*first = of_entry;
      }
    }
}

}    // namespace

Plan::Plan(const Potential &potential) : species_coeffs(potential.species_coeffs), moment_coeffs(potential.moment_coeffs)
{
  if (!potential.trained) throw Error(Error::Kind::argument, "the potential is not trained: it has no coefficients. Fit it first (`mtp fit`)");
  counts.n_species = potential.n_species;
  counts.n_radial = potential.n_radial();
  counts.n_chebyshev = potential.n_chebyshev;
  counts.n_scalar = potential.basis.n_scalar();
  counts.n_parameters = potential.n_parameters();
  counts.cutoff = potential.cutoff;
  counts.min_distance = potential.min_distance;
  counts.scaling = potential.scaling;
  lay_out_basic_moments(potential.basis);
  order_products(potential.basis);
  split_off_energy();
  expand_radial_functions(potential);
  if (potential.guard) tabulate_guard(potential);
}

void Plan::lay_out_basic_moments(const Basis &basis)
{
  int highest = 0;
  for (const auto &m : basis.basic) {
    const int nu = m.a + m.b + m.c;
    if (nu > max_degree)
      throw Error(Error::Kind::argument, "moments of rank " + std::to_string(nu) + " are beyond the supported " + std::to_string(max_degree));
    highest = std::max(highest, nu);
    counts.n_mu[nu] = std::max(counts.n_mu[nu], m.mu + 1);
  }
  // expansions lead from a degree to the one two below; every degree has as many radial functions as those above it and at least one, if only with
  // moments that stay unread
  for (int nu = highest; nu >= 0; nu--) counts.n_mu[nu] = std::max({counts.n_mu[nu], nu < highest ? counts.n_mu[nu + 1] : 0, 1});
  counts.highest_degree = highest;
  std::vector<int> first_of_degree;
  for (int nu = 0; nu <= highest; nu++) {
    first_of_degree.push_back(counts.n_summed);
    for (int k = 0; k < monomials_of_degree(nu); k++, counts.n_summed += counts.n_mu[nu]) first_moment.push_back(counts.n_summed);
    counts.n_monomials += monomials_of_degree(nu);
  }
  first_moment.push_back(counts.n_summed);
  counts.n_moments = counts.n_summed;

  std::map<std::array<int, 4>, int> expanded;
  const std::function<int(int, int, int, int)> find = [&](int mu, int a, int b, int c) {
    const int nu = a + b + c;
    if (c <= 1) return first_of_degree[nu] + (c == 0 ? b : nu + 1 + b) * counts.n_mu[nu] + mu;
    const auto known = expanded.find({mu, a, b, c});
    if (known != expanded.end()) return known->second;
    const int p = find(mu, a, b, c - 2), q = find(mu, a + 2, b, c - 2), s = find(mu, a, b + 2, c - 2), t = counts.n_moments++;
    expansions.push_back({t, p, q, s});
    expanded[{mu, a, b, c}] = t;
    return t;
  };
  moment_of.resize(basis.n_moments);
  for (int k = 0; k < basis.n_basic(); k++) moment_of[k] = find(basis.basic[k].mu, basis.basic[k].a, basis.basic[k].b, basis.basic[k].c);
  for (int k = basis.n_basic(); k < basis.n_moments; k++) moment_of[k] = counts.n_moments++;
  for (int moment : basis.scalars) scalars.push_back(moment_of[moment]);
  counts.n_expansions = static_cast<int>(expansions.size());
  std::vector<int> steps(counts.n_moments, 0);
  for (const Expansion &x : expansions) steps[x.t] = 1 + std::max({steps[x.p], steps[x.q], steps[x.s]});
  expansion_levels = sort_by_depth(expansions, [&](const Expansion &x) { return steps[x.t]; });
}

// Among what can be computed at the same time, long loops come first and those of equal length together: processors foresee their ends, and threads
// that work side by side wait less for one another.
void Plan::order_products(const Basis &basis)
{
  std::vector<int> last_row(counts.n_moments, -1);
  std::map<int, std::vector<Row>> rows_of;
  for (std::size_t i = 0; i < basis.products.size(); i++) {
    const Product &x = basis.products[i];
    rows_of[moment_of[x.t]].push_back({moment_of[x.p], moment_of[x.q], static_cast<double>(x.coefficient)});
    last_row[moment_of[x.t]] = static_cast<int>(i);
  }
  std::vector<int> order;
  for (const auto &entry : rows_of) order.push_back(entry.first);
  std::sort(order.begin(), order.end(), [&](int l, int r) { return last_row[l] < last_row[r]; });
  depth.assign(counts.n_moments, 0);    // the order in which the file completes them is one in which they can be computed
  for (int t : order)
    for (const Row &row : rows_of[t]) depth[t] = std::max({depth[t], depth[row.p] + 1, depth[row.q] + 1});
  std::stable_sort(order.begin(), order.end(),
                   [&](int l, int r) { return std::make_pair(depth[l], rows_of[r].size()) < std::make_pair(depth[r], rows_of[l].size()); });
  for (int t : order) {
    targets.push_back({t, static_cast<int>(rows.size()), static_cast<int>(rows_of[t].size())});
    rows.insert(rows.end(), rows_of[t].begin(), rows_of[t].end());
  }
  counts.n_targets = static_cast<int>(targets.size());
  target_levels = sort_by_depth(targets, [&](const Target &target) { return depth[target.t]; });
}

// A product that nobody reads but the energy is multiplied by its coefficient at once and never stored.
void Plan::split_off_energy()
{
  std::vector<double> coefficient(counts.n_moments, 0.0);
  for (int alpha = 0; alpha < counts.n_scalar; alpha++) coefficient[scalars[alpha]] += moment_coeffs[alpha];
  std::vector<char> is_read(counts.n_moments, 0), is_product(counts.n_moments, 0);
  for (const auto &row : rows) is_read[row.p] = is_read[row.q] = 1;
  std::map<std::pair<int, int>, double> outer;
  for (const auto &target : targets) {
    is_product[target.t] = 1;
    if (is_read[target.t]) {
      inner_targets.push_back(target);
      continue;
    }
    for (int i = target.first_row; i < target.first_row + target.n_rows; i++)
      outer[std::minmax(rows[i].p, rows[i].q)] += rows[i].c * coefficient[target.t];
  }
  for (const auto &[factors, c] : outer) outer_rows.push_back({factors.first, factors.second, c});
  for (int k = 0; k < counts.n_moments; k++)
    if (is_product[k] && !is_read[k]) coefficient[k] = 0;
  collect_uses(coefficient);
  inner_target_levels = sort_by_depth(inner_targets, [&](const Target &target) { return depth[target.t]; });
  counts.n_inner_targets = static_cast<int>(inner_targets.size());
  counts.n_outer_rows = static_cast<int>(outer_rows.size());
}

void Plan::collect_uses(const std::vector<double> &coefficient)
{
  std::vector<std::vector<Row>> outer(counts.n_moments), inner(counts.n_moments);
  std::vector<char> has_adjoint(counts.n_moments, 1);
  for (const auto &target : targets) has_adjoint[target.t] = 0;
  for (const auto &target : inner_targets) {
    has_adjoint[target.t] = 1;
    for (int i = target.first_row; i < target.first_row + target.n_rows; i++) {
      const Row &row = rows[i];
      inner[row.p].push_back({target.t, row.q, row.c});
      inner[row.q].push_back({target.t, row.p, row.c});
    }
  }
  for (const Row &row : outer_rows) {
    outer[row.p].push_back({row.p, row.q, row.c});
    outer[row.q].push_back({row.q, row.p, row.c});
  }
  for (int k = 0; k < counts.n_moments; k++)
    if (has_adjoint[k]) uses.push_back({k, 0, static_cast<int>(outer[k].size()), 0, static_cast<int>(inner[k].size()), coefficient[k]});
  std::stable_sort(uses.begin(), uses.end(),
                   [](const Use &l, const Use &r) { return std::make_pair(l.n_inner, l.n_outer) > std::make_pair(r.n_inner, r.n_outer); });
  use_levels = sort_by_depth(uses, [&](const Use &use) { return -depth[use.k]; });
  for (Use &use : uses) {
    use.first_outer = static_cast<int>(use_rows.size());
    use_rows.insert(use_rows.end(), outer[use.k].begin(), outer[use.k].end());
    use.first_inner = static_cast<int>(use_rows.size());
    use_rows.insert(use_rows.end(), inner[use.k].begin(), inner[use.k].end());
  }
  counts.n_uses = static_cast<int>(uses.size());
}

Plan Plan::interleaved(int lanes) const
{
  Plan plan = *this;
  plan.rows.clear();
  plan.use_rows.clear();
  interleave(lanes, target_levels, plan.targets, &Target::first_row, &Target::n_rows, rows, plan.rows);
  interleave(lanes, inner_target_levels, plan.inner_targets, &Target::first_row, &Target::n_rows, rows, plan.rows);
  interleave(lanes, use_levels, plan.uses, &Use::first_outer, &Use::n_outer, use_rows, plan.use_rows);
  interleave(lanes, use_levels, plan.uses, &Use::first_inner, &Use::n_inner, use_rows, plan.use_rows);
  return plan;
}

void Plan::expand_radial_functions(const Potential &potential)
{
  const int R = potential.n_chebyshev;
  const double slope = 2 / (potential.cutoff - potential.min_distance);    // d xi / dr
  radial_series = potential.radial_coeffs;
  radial_slopes.assign(radial_series.size(), 0.0);
  for (std::size_t start = 0; start < radial_series.size(); start += R) {
    const double *series = &radial_series[start];
    double *derived = &radial_slopes[start];
    for (int beta = R - 1; beta > 0; beta--) derived[beta - 1] = (beta + 1 < R ? derived[beta + 1] : 0.0) + 2 * beta * series[beta];
    derived[0] /= 2;
    for (int beta = 0; beta < R; beta++) derived[beta] *= slope;
  }
  single_series.assign(radial_series.begin(), radial_series.end());
  single_slopes.assign(radial_slopes.begin(), radial_slopes.end());
}

void Plan::tabulate_guard(const Potential &potential)
{
  const int S = potential.n_species;
  for (int i = 0; i < S; i++)
    for (int j = 0; j < S; j++) {
      const PairGuard &pair = potential.guard->pairs[i * S + j];
      fades.push_back(pair.fade);
      counts.fade_reach = std::max(counts.fade_reach, pair.fade.outer);
      counts.repulsion_reach = std::max(counts.repulsion_reach, pair.repulsion.outer);
      repulsions.push_back(repulsion_between(potential.elements[i], potential.elements[j], pair.repulsion));
    }
}

}    // namespace mtp
