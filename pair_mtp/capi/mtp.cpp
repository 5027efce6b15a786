// SPDX-License-Identifier: BSD-3-Clause
#include "mtp.h"

#include "guarded.hpp"
#include "mtp_potential.hpp"

#include "../core/grader.hpp"
#include "../core/mixed_derivatives.hpp"
#include "../core/sites.hpp"

#include <algorithm>
#include <cmath>
#include <memory>
#include <sstream>
#include <vector>

namespace mtp {

std::string &last_error()
{
  thread_local std::string message;
  return message;
}

namespace {

template <class Action> mtp_status plainly(const Action &action) noexcept
{
  return guarded([&] {
    action();
    return MTP_SUCCESS;
  });
}

void check(const mtp_potential &potential, const mtp_neighbourhoods &atoms)
{
  const int n_species = potential.potential.n_species;
  for (int64_t i = 0; i < atoms.n_atoms; i++) {
    if (atoms.species[i] < 0 || atoms.species[i] >= n_species)
      throw Error(Error::Kind::argument, "atom " + std::to_string(i) + " has species " + std::to_string(atoms.species[i]) + ", the potential has " +
                                             std::to_string(n_species));
    for (int64_t pair = atoms.first[i]; pair < atoms.first[i + 1]; pair++)
      if (atoms.neighbour[pair] < 0 || atoms.neighbour[pair] >= atoms.n_atoms)
        throw Error(Error::Kind::argument,
                    "neighbour index " + std::to_string(atoms.neighbour[pair]) + " of atom " + std::to_string(i) + " is out of range");
  }
}

// Evaluates all atoms, as many of a species at a time as T has lanes, and calls action(lane, atom) after each evaluation.
template <class T, class Action>
void for_each_atom(Sites<T> &sites, const mtp_neighbourhoods &atoms, int n_species, bool all_scalars, const Action &action)
{
  std::vector<int64_t> group;
  for (int z = 0; z < n_species; z++) {
    const auto evaluate = [&] {
      int64_t most = 0;
      for (int64_t i : group) most = std::max(most, atoms.first[i + 1] - atoms.first[i]);
      sites.begin(z, static_cast<int>(most));
      for (std::size_t lane = 0; lane < group.size(); lane++) {
        const int64_t first = atoms.first[group[lane]], n = atoms.first[group[lane] + 1] - first;
        sites.offer(static_cast<int>(lane), static_cast<int>(n), [&](int k, double *r) {
          std::copy(atoms.vectors + 3 * (first + k), atoms.vectors + 3 * (first + k + 1), r);
          const int32_t j = atoms.neighbour[first + k];
          return Named{atoms.species[j], j};
        });
      }
      try {
        sites.evaluate(all_scalars);
      } catch (const SiteError &error) {
        throw Error(error.kind, "atom " + std::to_string(group[error.lane]) + ": " + error.what());
      }
      action(z, group);
      group.clear();
    };
    for (int64_t i = 0; i < atoms.n_atoms; i++) {
      if (atoms.species[i] != z) continue;
      group.push_back(i);
      if (static_cast<int>(group.size()) == Sites<T>::width) evaluate();
    }
    if (!group.empty()) evaluate();
  }
}

const int voigt[6][2] = {{0, 0}, {1, 1}, {2, 2}, {1, 2}, {0, 2}, {0, 1}};

ActiveSetMode mode_of(int32_t mode)
{
  if (mode != 0 && mode != 1) throw Error(Error::Kind::argument, "mode must be 0 (neighbourhood) or 1 (configuration)");
  return mode ? ActiveSetMode::configuration : ActiveSetMode::neighbourhood;
}

}    // namespace
}    // namespace mtp

using namespace mtp;

extern "C" {

int32_t mtp_abi_version(void)
{
  return 1;
}

const char *mtp_last_error(void)
{
  return last_error().c_str();
}

mtp_status mtp_potential_load(const char *path, mtp_potential **potential)
{
  return plainly([&] { *potential = new mtp_potential(read_potential(path)); });
}

mtp_status mtp_potential_new(const mtp_form *form, mtp_potential **potential)
{
  return plainly([&] {
    if (form->n_species < 1 || form->n_chebyshev < 1)
      throw Error(Error::Kind::argument, "a potential has at least one species and one radial basis function");
    Potential made;
    made.n_species = form->n_species;
    made.n_chebyshev = form->n_chebyshev;
    made.min_distance = form->min_distance;
    made.cutoff = form->cutoff;
    made.basis = generate_basis(form->level);
    made.check("new potential");
    *potential = new mtp_potential(std::move(made));
  });
}

mtp_status mtp_potential_copy(const mtp_potential *potential, mtp_potential **copy)
{
  return plainly([&] { *copy = new mtp_potential(*potential); });
}

mtp_status mtp_potential_save(const mtp_potential *potential, const char *path, int32_t with_active_set)
{
  return plainly([&] { write_potential(potential->potential, path, with_active_set != 0); });
}

void mtp_potential_free(mtp_potential *potential)
{
  delete potential;
}

mtp_status mtp_potential_facts(const mtp_potential *potential, mtp_facts *facts)
{
  return plainly([&] {
    const Potential &p = potential->potential;
    facts->n_species = p.n_species;
    facts->n_radial = p.n_radial();
    facts->n_chebyshev = p.n_chebyshev;
    facts->n_moments = p.basis.n_moments;
    facts->n_basic = p.basis.n_basic();
    facts->n_products = static_cast<int32_t>(p.basis.products.size());
    facts->n_scalar = p.basis.n_scalar();
    facts->n_parameters = p.n_parameters();
    facts->trained = p.trained;
    facts->active_set_mode = !p.active_set ? -1 : p.active_set->mode == ActiveSetMode::neighbourhood ? 0 : 1;
    facts->min_distance = p.min_distance;
    facts->cutoff = p.cutoff;
    facts->scaling = p.scaling;
  });
}

mtp_status mtp_potential_get_elements(const mtp_potential *potential, const char **elements)
{
  return plainly([&] { *elements = potential->elements.c_str(); });
}

mtp_status mtp_potential_set_elements(mtp_potential *potential, const char *elements)
{
  return plainly([&] {
    std::vector<std::string> names;
    std::istringstream text(elements);
    for (std::string name; std::getline(text, name, ',');) {
      if (name.empty() || std::any_of(name.begin(), name.end(), [](unsigned char c) { return c <= ' '; }))
        throw Error(Error::Kind::argument, "'" + name + "' is no element name: it is empty or holds a blank");
      names.push_back(name);
    }
    if (!names.empty() && static_cast<int>(names.size()) != potential->potential.n_species)
      throw Error(Error::Kind::argument,
                  std::to_string(names.size()) + " element names for " + std::to_string(potential->potential.n_species) + " species");
    potential->potential.elements = std::move(names);
    potential->refresh();
  });
}

mtp_status mtp_potential_get_parameters(const mtp_potential *potential, double *theta)
{
  return plainly([&] { potential->potential.get_parameters(theta); });
}

mtp_status mtp_potential_set_parameters(mtp_potential *potential, const double *theta)
{
  return plainly([&] {
    potential->potential.set_parameters(theta);
    potential->refresh();
  });
}

mtp_status mtp_potential_set_scaling(mtp_potential *potential, double scaling)
{
  return plainly([&] {
    if (!std::isfinite(scaling) || scaling == 0) throw Error(Error::Kind::argument, "scaling must be finite and not zero");
    potential->potential.scaling = scaling;
    potential->potential.active_set.reset();
    potential->refresh();
  });
}

mtp_status mtp_evaluate(const mtp_potential *potential, const mtp_neighbourhoods *atoms, double *energies, double *forces, double *virial)
{
  return plainly([&] {
    const PlanView plan = potential->compiled().view();
    check(*potential, *atoms);
    Sites<Lane8> sites(plan);
    std::fill(forces, forces + 3 * atoms->n_atoms, 0.0);
    std::fill(virial, virial + 9, 0.0);
    for_each_atom(sites, *atoms, plan.n_species, false, [&](int, const std::vector<int64_t> &group) {
      for (std::size_t lane = 0; lane < group.size(); lane++) {
        const int64_t i = group[lane];
        energies[i] = sites.energy(static_cast<int>(lane));
        sites.for_each_neighbour(static_cast<int>(lane), [&](int j, const double *r, const double *g) {
          for (int b = 0; b < 3; b++) {
            forces[3 * i + b] += g[b];
            forces[3 * static_cast<int64_t>(j) + b] -= g[b];
            for (int a = 0; a < 3; a++) virial[3 * a + b] += r[a] * g[b];
          }
        });
      }
    });
    for (int a = 0; a < 3; a++)    // symmetric by rotational invariance, but for rounding
      for (int b = 0; b < a; b++) virial[3 * a + b] = virial[3 * b + a] = (virial[3 * a + b] + virial[3 * b + a]) / 2;
  });
}

mtp_status mtp_parameter_gradient(const mtp_potential *potential, const mtp_neighbourhoods *atoms, double *rows)
{
  return plainly([&] {
    const PlanView plan = potential->compiled().view();
    check(*potential, *atoms);
    Sites<Lane8> sites(plan);
    const int64_t n = plan.n_parameters;
    const int n_active = sites.n_active();
    Scratch<double> active;
    active.require(static_cast<std::size_t>(n_active) * pack_width);
    std::fill(rows, rows + atoms->n_atoms * n, 0.0);
    for_each_atom(sites, *atoms, plan.n_species, true, [&](int z, const std::vector<int64_t> &group) {
      sites.parameter_gradient(active.get());
      for (int k = 0; k < n_active; k++) {
        const int theta = sites.place_of_active(z, k);
        for (std::size_t lane = 0; lane < group.size(); lane++) rows[group[lane] * n + theta] = active.get()[k * pack_width + static_cast<int>(lane)];
      }
    });
  });
}

mtp_status mtp_jacobian(const mtp_potential *potential, const mtp_neighbourhoods *atoms, int32_t linear_only, double *energy, double *forces,
                        double *virial)
{
  return plainly([&] {
    const PlanView plan = potential->compiled().view();
    check(*potential, *atoms);
    MixedDerivatives sites(plan);
    const int64_t skipped = linear_only ? potential->potential.n_radial_coeffs() : 0, n = plan.n_parameters - skipped;
    const int first_active = linear_only ? sites.n_radial_active() : 0, n_active = sites.n_parameters(linear_only != 0);
    const int n_radial = linear_only ? 0 : sites.n_radial_active();
    std::vector<double> row(sites.n_active());
    Scratch<double> mixed;
    std::fill(energy, energy + n, 0.0);
    std::fill(forces, forces + 3 * atoms->n_atoms * n, 0.0);
    std::fill(virial, virial + 6 * n, 0.0);
    for_each_atom(sites, *atoms, plan.n_species, true, [&](int z, const std::vector<int64_t> &group) {
      const int64_t i = group[0];
      sites.parameter_gradient(row.data());
      for (int k = 0; k < n_active; k++) energy[sites.place_of_active(z, first_active + k) - skipped] += row[first_active + k];
      sites.compute(linear_only != 0, mixed);
      // the parameters that gradients depend on are two runs of a row: the radial coefficients of this species and the moment coefficients
      const int64_t radial = linear_only ? 0 : sites.place_of_active(z, 0), moment = n - plan.n_scalar;
      const auto add = [&](double *to, const double *from, double weight) {
        for (int theta = 0; theta < n_radial; theta++) to[radial + theta] += weight * from[theta];
        for (int theta = 0; theta < plan.n_scalar; theta++) to[moment + theta] += weight * from[n_radial + 1 + theta];
      };
      const double *from = mixed.get();
      sites.for_each_neighbour(0, [&](int j, const double *r, const double *) {
        for (int b = 0; b < 3; b++, from += n_active) {
          add(forces + (3 * i + b) * n, from, 1);
          add(forces + (3 * static_cast<int64_t>(j) + b) * n, from, -1);
          for (int v = 0; v < 6; v++)
            if (voigt[v][1] == b) add(virial + v * n, from, r[voigt[v][0]]);
        }
      });
    });
  });
}

mtp_status mtp_grade(const mtp_potential *potential, const mtp_neighbourhoods *atoms, double *grades)
{
  return plainly([&] {
    const auto &set = potential->potential.active_set;
    if (!set) throw Error(Error::Kind::argument, "the potential has no active set to grade with; `mtp select` builds one");
    const PlanView plan = potential->compiled().view();
    check(*potential, *atoms);
    Sites<Lane8> sites(plan);
    const Grader grader(*set, plan);
    const int n_active = sites.n_active();
    Scratch<double> rows;
    rows.require(static_cast<std::size_t>(n_active) * pack_width);
    std::vector<double> sum(plan.n_parameters, 0.0);
    for_each_atom(sites, *atoms, plan.n_species, true, [&](int z, const std::vector<int64_t> &group) {
      sites.parameter_gradient(rows.get());
      if (set->mode == ActiveSetMode::neighbourhood) {
        double of_lane[pack_width];
        grader.grade(z, rows.get(), of_lane);
        for (std::size_t lane = 0; lane < group.size(); lane++) grades[group[lane]] = of_lane[lane];
      } else {
        for (int k = 0; k < n_active; k++)
          for (std::size_t lane = 0; lane < group.size(); lane++)
            sum[sites.place_of_active(z, k)] += rows.get()[k * pack_width + static_cast<int>(lane)] / static_cast<double>(atoms->n_atoms);
      }
    });
    if (set->mode == ActiveSetMode::configuration) grades[0] = set->grade(sum.data());
  });
}

mtp_status mtp_select(mtp_potential *potential, int32_t mode, int64_t n_rows, const double *rows, double threshold, int64_t *slots, int64_t *n_swaps)
{
  return plainly([&] {
    potential->compiled();
    const auto &set = potential->potential.active_set;
    const int n = potential->potential.n_parameters();
    ActiveSet next = set && set->mode == mode_of(mode) ? *set : ActiveSet::blank(mode_of(mode), n, n_rows, rows);
    const int64_t swaps = next.maximise_volume(n_rows, rows, threshold, slots);
    potential->potential.active_set = std::move(next);
    if (n_swaps) *n_swaps = swaps;
  });
}

mtp_status mtp_active_set_get(const mtp_potential *potential, double *rows)
{
  return plainly([&] {
    const auto &set = potential->potential.active_set;
    if (!set) throw Error(Error::Kind::argument, "the potential has no active set");
    std::copy(set->rows.begin(), set->rows.end(), rows);
  });
}

mtp_status mtp_active_set_set(mtp_potential *potential, int32_t mode, const double *rows)
{
  return plainly([&] {
    potential->compiled();
    const int n = potential->potential.n_parameters();
    ActiveSet next = ActiveSet::blank(mode_of(mode), n, n, rows);
    std::copy(rows, rows + next.rows.size(), next.rows.begin());
    next.invert();
    if (next.inverse_error() >= 1e-2)
      throw Error(Error::Kind::numerical, "the active set is singular: its rows are linearly dependent but for rounding");
    potential->potential.active_set = std::move(next);
  });
}

}    // extern "C"
