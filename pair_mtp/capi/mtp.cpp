// SPDX-License-Identifier: BSD-3-Clause
#include "mtp.h"

#include "guarded.hpp"
#include "mtp_potential.hpp"

#include "../core/directional_gradient.hpp"
#include "../core/grader.hpp"
#include "../core/mixed_derivatives.hpp"
#include "../core/neighbours.hpp"
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
  const auto refuse = [](const std::string &what) { throw Error(Error::Kind::argument, what); };
  if (atoms.n_configurations < 1 || atoms.first_atom[0] != 0 || atoms.first_atom[atoms.n_configurations] != atoms.n_atoms)
    refuse("the atoms of the configurations do not add up to all atoms");
  const int n_species = potential.potential.n_species;
  for (int64_t c = 0; c < atoms.n_configurations; c++) {
    const int64_t first = atoms.first_atom[c], end = atoms.first_atom[c + 1];
    if (end < first) refuse("configuration " + std::to_string(c) + " ends before it begins");
    for (int64_t i = first; i < end; i++) {
      if (atoms.species[i] < 0 || atoms.species[i] >= n_species)
        refuse("atom " + std::to_string(i) + " has species " + std::to_string(atoms.species[i]) + ", the potential has " + std::to_string(n_species));
      for (int64_t pair = atoms.first[i]; pair < atoms.first[i + 1]; pair++)
        if (atoms.neighbour[pair] < first || atoms.neighbour[pair] >= end)
          refuse("neighbour index " + std::to_string(atoms.neighbour[pair]) + " of atom " + std::to_string(i) + " is out of range");
    }
  }
}

// Where observables stand in arrays of those of several configurations, 7 + 3 N in a row for each.
struct Observables {
  std::vector<int64_t> configuration;    // of each atom
  const int64_t *first_atom;

  explicit Observables(const mtp_neighbourhoods &atoms) : configuration(atoms.n_atoms), first_atom(atoms.first_atom)
  {
    for (int64_t c = 0; c < atoms.n_configurations; c++)
      std::fill(configuration.begin() + first_atom[c], configuration.begin() + first_atom[c + 1], c);
  }
  int64_t energy(int64_t c) const { return 3 * first_atom[c] + 7 * c; }
  int64_t force(int64_t i) const { return 3 * i + 7 * configuration[i] + 1; }
  int64_t virial(int64_t c) const { return 3 * first_atom[c + 1] + 7 * c + 1; }
  int64_t size(int64_t n_configurations) const { return energy(n_configurations); }
};

// Offers the neighbours of all atoms, eight atoms of a species at a time, and calls action(species, atoms in the lanes) for each group.
template <class Action> void for_each_group(Sites<Lane8> &sites, const mtp_neighbourhoods &atoms, int n_species, const Action &action)
{
  std::vector<int64_t> group;
  for (int z = 0; z < n_species; z++) {
    const auto offer = [&] {
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
      action(z, group);
      group.clear();
    };
    for (int64_t i = 0; i < atoms.n_atoms; i++) {
      if (atoms.species[i] != z) continue;
      group.push_back(i);
      if (static_cast<int>(group.size()) == Sites<Lane8>::width) offer();
    }
    if (!group.empty()) offer();
  }
}

// Evaluates all atoms and calls action(species, atoms in the lanes) after each evaluation.
template <class Action>
void for_each_atom(Sites<Lane8> &sites, const mtp_neighbourhoods &atoms, int n_species, bool all_scalars, const Action &action)
{
  for_each_group(sites, atoms, n_species, [&](int z, const std::vector<int64_t> &group) {
    try {
      sites.evaluate(all_scalars);
    } catch (const SiteError &error) {
      throw Error(error.kind, "atom " + std::to_string(group[error.lane]) + ": " + error.what());
    }
    action(z, group);
  });
}

Neighbours find_neighbours(const mtp_configurations &c, double cutoff)
{
  NeighbourSearch search(cutoff);
  Neighbours found;
  for (int64_t k = 0; k < c.n_configurations; k++) try {
      search.append(c.first_atom[k + 1] - c.first_atom[k], c.positions + 3 * c.first_atom[k], c.cells + 9 * k, c.periodic + 3 * k, found);
    } catch (const Error &error) {
      if (c.n_configurations == 1) throw;
      throw Error(error.kind, "configuration " + std::to_string(k) + ": " + error.what());
    }
  return found;
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
  return 4;
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
    if (potential->potential.guard) potential->potential.guard->check(names, potential->potential.n_species);
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

mtp_status mtp_potential_set_guard(mtp_potential *potential, const double *distances)
{
  return plainly([&] {
    std::optional<Guard> guard;
    if (distances) {
      guard.emplace();
      const int n_pairs = potential->potential.n_species * potential->potential.n_species;
      for (const double *d = distances; d != distances + 4 * n_pairs; d += 4) guard->pairs.push_back({{d[0], d[1]}, {d[2], d[3]}});
    }
    potential->potential.set_guard(std::move(guard));
    potential->refresh();
  });
}

mtp_status mtp_potential_get_guard(const mtp_potential *potential, double *distances, int32_t *present)
{
  return plainly([&] {
    const auto &guard = potential->potential.guard;
    *present = guard.has_value();
    if (!guard || !distances) return;
    for (const PairGuard &pair : guard->pairs)
      for (double distance : {pair.repulsion.inner, pair.repulsion.outer, pair.fade.inner, pair.fade.outer}) *distances++ = distance;
  });
}

mtp_status mtp_evaluate(const mtp_potential *potential, const mtp_neighbourhoods *atoms, double *energies, double *forces, double *virial)
{
  return plainly([&] {
    const PlanView plan = potential->compiled().view();
    check(*potential, *atoms);
    Sites<Lane8> sites(plan);
    const Observables places(*atoms);
    std::fill(forces, forces + 3 * atoms->n_atoms, 0.0);
    std::fill(virial, virial + 9 * atoms->n_configurations, 0.0);
    for_each_atom(sites, *atoms, plan.n_species, false, [&](int, const std::vector<int64_t> &group) {
      for (std::size_t lane = 0; lane < group.size(); lane++) {
        const int64_t i = group[lane];
        energies[i] = sites.energy(static_cast<int>(lane));
        double force[3] = {0, 0, 0}, W[9] = {0, 0, 0, 0, 0, 0, 0, 0, 0};    // in registers, whatever the arrays overlap with
        sites.for_each_neighbour(static_cast<int>(lane), [&](int j, const double *r, const double *g) {
          for (int b = 0; b < 3; b++) {
            force[b] += g[b];
            forces[3 * static_cast<int64_t>(j) + b] -= g[b];
            for (int a = 0; a < 3; a++) W[3 * a + b] += r[a] * g[b];
          }
        });
        for (int b = 0; b < 3; b++) forces[3 * i + b] += force[b];
        for (int k = 0; k < 9; k++) virial[9 * places.configuration[i] + k] += W[k];
      }
    });
    for (int64_t c = 0; c < atoms->n_configurations; c++, virial += 9)
      for (int a = 0; a < 3; a++)    // symmetric by rotational invariance, but for rounding
        for (int b = 0; b < a; b++) virial[3 * a + b] = virial[3 * b + a] = (virial[3 * a + b] + virial[3 * b + a]) / 2;
  });
}

mtp_status mtp_find_neighbours(const mtp_configurations *configurations, double cutoff, int64_t capacity, int64_t *first, int32_t *neighbour,
                               double *vectors)
{
  return plainly([&] {
    const Neighbours found = find_neighbours(*configurations, cutoff);
    std::copy(found.first.begin(), found.first.end(), first);
    const int64_t n_pairs = found.first.back();
    if (n_pairs > capacity) return;
    std::copy(found.index.begin(), found.index.begin() + n_pairs, neighbour);
    std::copy(found.vectors.begin(), found.vectors.begin() + 3 * n_pairs, vectors);
  });
}

mtp_status mtp_evaluate_configurations(const mtp_potential *potential, const mtp_configurations *configurations, double *energies, double *forces,
                                       double *virials)
{
  Neighbours found;
  const mtp_status status = plainly([&] { found = find_neighbours(*configurations, potential->compiled().view().cutoff); });
  if (status != MTP_SUCCESS) return status;
  mtp_neighbourhoods atoms{};
  atoms.n_configurations = configurations->n_configurations;
  atoms.first_atom = configurations->first_atom;
  atoms.n_atoms = found.n_atoms();
  atoms.species = configurations->species;
  atoms.first = found.first.data();
  atoms.neighbour = found.index.data();
  atoms.vectors = found.vectors.data();
  return mtp_evaluate(potential, &atoms, energies, forces, virials);
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

mtp_status mtp_jacobian(const mtp_potential *potential, const mtp_neighbourhoods *atoms, int32_t linear_only, double *jacobian)
{
  return plainly([&] {
    const PlanView plan = potential->compiled().view();
    check(*potential, *atoms);
    MixedDerivatives sites(plan, linear_only != 0);
    const Observables places(*atoms);
    const int64_t n = plan.n_parameters - (linear_only ? potential->potential.n_radial_coeffs() : 0);
    std::fill(jacobian, jacobian + places.size(atoms->n_configurations) * n, 0.0);
    for_each_atom(sites, *atoms, plan.n_species, true, [&](int, const std::vector<int64_t> &group) {
      sites.prepare();
      for (std::size_t lane = 0; lane < group.size(); lane++) {
        const int64_t i = group[lane], c = places.configuration[i];
        // rows of forces are counted from the batch's first atom on, as neighbours are
        double *const forces = jacobian + (places.force(i) - 3 * i) * n;
        sites.add(static_cast<int>(lane), static_cast<int>(i), {jacobian + places.energy(c) * n, forces, jacobian + places.virial(c) * n, n});
      }
    });
  });
}

mtp_status mtp_square_errors(const mtp_potential *potential, const mtp_neighbourhoods *atoms, const double *reference, const double *weights,
                             double *errors, double *gradient)
{
  return plainly([&] {
    const PlanView plan = potential->compiled().view();
    const Observables places(*atoms);
    const int64_t n = atoms->n_atoms, n_configurations = atoms->n_configurations;
    std::vector<double> energies(n), forces(3 * n), virials(9 * n_configurations);
    const mtp_status status = mtp_evaluate(potential, atoms, energies.data(), forces.data(), virials.data());
    if (status != MTP_SUCCESS) throw Error(Error::Kind::numerical, last_error());

    // d(error)/d(observable), in place of the observables: of total energies, forces and the nine components of the virial
    std::fill(errors, errors + 3, 0.0);
    const auto differentiate = [&](double predicted, int64_t at, double &error) {
      const double difference = predicted - reference[at];
      error += weights[at] * difference * difference;
      return 2 * weights[at] * difference;
    };
    std::vector<double> of_energy(n_configurations);
    for (int64_t c = 0; c < n_configurations; c++) {
      double energy = 0;
      for (int64_t i = atoms->first_atom[c]; i < atoms->first_atom[c + 1]; i++) energy += energies[i];
      of_energy[c] = differentiate(energy, places.energy(c), errors[0]);
      for (int64_t i = atoms->first_atom[c]; i < atoms->first_atom[c + 1]; i++)
        for (int b = 0; b < 3; b++) forces[3 * i + b] = differentiate(forces[3 * i + b], places.force(i) + b, errors[1]);
      double *const W = &virials[9 * c];
      for (int v = 0; v < 6; v++) {
        const int a = voigt[v][0], b = voigt[v][1];
        const double half = differentiate(W[3 * a + b], places.virial(c) + v, errors[2]) / (a == b ? 1 : 2);
        W[3 * a + b] = W[3 * b + a] = half;
      }
    }
    if (!gradient) return;

    // the force on atom k is -dE/dr_k: the directions are differences of these derivatives, and strain for the virial's
    DirectionalGradient sites(plan);
    std::fill(gradient, gradient + plan.n_parameters, 0.0);
    for_each_group(sites, *atoms, plan.n_species, [&](int, const std::vector<int64_t> &group) {
      double energy_weights[pack_width] = {};
      for (std::size_t lane = 0; lane < group.size(); lane++) {
        const int64_t i = group[lane], c = places.configuration[i];
        energy_weights[lane] = of_energy[c];
        const double *const of_i = &forces[3 * i], *const W = &virials[9 * c];
        sites.set_directions(static_cast<int>(lane), [&](int j, const double *r, double *v) {
          const double *const of_j = &forces[3 * static_cast<int64_t>(j)];
          for (int b = 0; b < 3; b++) v[b] = of_i[b] - of_j[b] + W[b] * r[0] + W[3 + b] * r[1] + W[6 + b] * r[2];
        });
      }
      sites.add_gradient(energy_weights, gradient);
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
    const Observables places(*atoms);
    const int n_active = sites.n_active();
    Scratch<double> rows;
    rows.require(static_cast<std::size_t>(n_active) * pack_width);
    const bool local = set->mode == ActiveSetMode::neighbourhood;
    std::vector<double> mean(local ? 0 : plan.n_parameters * atoms->n_configurations, 0.0);    // rows of the configurations
    for_each_atom(sites, *atoms, plan.n_species, true, [&](int z, const std::vector<int64_t> &group) {
      sites.parameter_gradient(rows.get());
      if (local) {
        double of_lane[pack_width];
        grader.grade(z, rows.get(), of_lane);
        for (std::size_t lane = 0; lane < group.size(); lane++) grades[group[lane]] = of_lane[lane];
        return;
      }
      for (std::size_t lane = 0; lane < group.size(); lane++) {
        const int64_t c = places.configuration[group[lane]];
        const auto size = static_cast<double>(atoms->first_atom[c + 1] - atoms->first_atom[c]);
        for (int k = 0; k < n_active; k++)
          mean[c * plan.n_parameters + sites.place_of_active(z, k)] += rows.get()[k * pack_width + static_cast<int>(lane)] / size;
      }
    });
    if (!local)
      for (int64_t c = 0; c < atoms->n_configurations; c++) grades[c] = set->grade(&mean[c * plan.n_parameters]);
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
