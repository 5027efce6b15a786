// SPDX-License-Identifier: GPL-2.0-or-later
#include "pair_mtp.h"

#include "../core/error.hpp"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

#include <algorithm>
#include <cstring>
#include <exception>

using namespace LAMMPS_NS;

PairMTP::PairMTP(LAMMPS *lmp, const char *name) : Pair(lmp), style(name), live(mtp::register_live_style(reinterpret_cast<std::uint64_t>(lmp)))
{
  single_enable = 0;    // a many-body energy has no pair parts, so neither `pair_write` nor compute pair/local
  restartinfo = 0;      // pair_style and pair_coeff are given again after read_restart
  respa_enable = 0;
  one_coeff = 1;
  manybody_flag = 1;
  unit_convert_flag = utils::get_supported_conversions(utils::ENERGY);
  centroidstressflag = CENTROID_AVAIL;
}

PairMTP::~PairMTP()
{
  if (!allocated) return;
  memory->destroy(setflag);
  memory->destroy(cutsq);
}

void PairMTP::allocate()
{
  const int n = atom->ntypes + 1;
  memory->create(setflag, n, n, "pair:setflag");
  memory->create(cutsq, n, n, "pair:cutsq");
  allocated = 1;
}

void PairMTP::settings(int narg, char **arg)
{
  if (narg > 1) error->all(FLERR, "pair_style {} takes no arguments; the file goes into pair_coeff: pair_coeff * * file El1 El2 ...", style);
  legacy_file = narg == 1 ? arg[0] : "";
  if (narg == 1 && comm->me == 0)
    error->warning(FLERR, "pair_style {} {}: the file belongs into pair_coeff: pair_coeff * * {} El1 El2 ...", style, arg[0], arg[0]);

  if (strcmp(update->unit_style, "metal") == 0) energy_unit = 1;
  else if (strcmp(update->unit_style, "real") == 0) energy_unit = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);
  else error->all(FLERR, "Pair style {} works with units metal or real, not {}", style, update->unit_style);
}

void PairMTP::coeff(int narg, char **arg)
{
  const bool legacy = narg == 2 && !legacy_file.empty();
  if ((narg < 3 && !legacy) || strcmp(arg[0], "*") != 0 || strcmp(arg[1], "*") != 0)
    error->all(FLERR, "Pair style {} wants: pair_coeff * * file El1 El2 ... (one element, or NULL, for each of the {} atom types)", style,
               atom->ntypes);
  const auto next = read(legacy ? legacy_file : arg[2]);
  const mtp::Potential &potential = next->potential;

  const int ntypes = atom->ntypes;
  if (!legacy && narg - 3 != ntypes)
    error->all(FLERR, "pair_coeff of pair style {} names {} elements; the system has {} atom types: give one element, or NULL, for each", style,
               narg - 3, ntypes);
  if (legacy && ntypes > potential.n_species)
    error->all(FLERR, "{} knows {} species; the system has {} atom types", legacy_file, potential.n_species, ntypes);

  species_of_type.assign(ntypes + 1, -1);
  for (int type = 1; type <= ntypes; type++) species_of_type[type] = legacy ? type - 1 : species_of(arg[type + 2], potential);
  if (*std::max_element(species_of_type.begin(), species_of_type.end()) < 0)
    error->all(FLERR, "pair_coeff of pair style {} maps every atom type to NULL", style);

  if (!allocated) allocate();
  for (int i = 1; i <= ntypes; i++)
    for (int j = 1; j <= ntypes; j++) setflag[i][j] = species_of_type[i] >= 0 && species_of_type[j] >= 0;
  live->set_model(next);
}

// Collective: what fails on one rank is an error on all.
std::shared_ptr<const mtp::Model> PairMTP::read(const std::string &name)
{
  std::shared_ptr<const mtp::Model> found;
  std::string problem;
  try {
    const std::string path = utils::get_potential_file_path(name);
    found = std::make_shared<const mtp::Model>(mtp::read_potential(path.empty() ? name : path));
  } catch (const std::exception &failure) {
    problem = failure.what();
  }
  int mine = problem.empty() ? comm->nprocs : comm->me, first;
  MPI_Allreduce(&mine, &first, 1, MPI_INT, MPI_MIN, world);
  if (first < comm->nprocs) {
    int length = static_cast<int>(problem.size());
    MPI_Bcast(&length, 1, MPI_INT, first, world);
    problem.resize(length);
    MPI_Bcast(&problem[0], length, MPI_CHAR, first, world);
    error->all(FLERR, "Pair style {}: {}", style, problem);
  }
  if (!found->potential.trained) error->all(FLERR, "Pair style {}: {} holds no coefficients: fit it first (`mtp fit`)", style, name);
  require(found->potential, name);
  return found;
}

int PairMTP::species_of(const std::string &name, const mtp::Potential &potential)
{
  if (name == "NULL") return -1;
  const auto &elements = potential.elements;
  const auto found = std::find(elements.begin(), elements.end(), name);
  if (found != elements.end()) return static_cast<int>(found - elements.begin());
  if (utils::is_integer(name)) {
    const int species = utils::inumeric(FLERR, name, false, lmp);
    if (species >= 0 && species < potential.n_species) return species;
  }
  std::string known;
  for (const auto &element : elements) known += " " + element;
  if (elements.empty()) known = fmt::format(" no element names, but species 0 to {}", potential.n_species - 1);
  error->all(FLERR, "Pair style {}: the potential does not know '{}'; it knows{}", style, name, known);
}

void PairMTP::init_style()
{
  if (!force->newton_pair) error->all(FLERR, "Pair style {} requires newton pair on", style);
  neighbor->add_request(this, NeighConst::REQ_FULL);
}

double PairMTP::init_one(int i, int j)
{
  if (!setflag[i][j]) error->all(FLERR, "Pair style {}: the coefficients of atom types {} and {} are not set", style, i, j);
  return live->current_model()->potential.cutoff;
}

void PairMTP::use_current_model()
{
  const auto current = live->current_model();
  if (current != model) workers.clear();
  model = current;
  while (static_cast<int>(workers.size()) < n_parts()) workers.emplace_back(model->plan.view());
}

void PairMTP::compute(int eflag, int vflag)
{
  use_current_model();
  evaluate_atoms(eflag, vflag, false);
}

void PairMTP::evaluate_atoms(int eflag, int vflag, bool all_scalars)
{
  ev_init(eflag, vflag);
  sort_by_species();
  const int n_atoms = atom->nlocal + atom->nghost;
  SumsOfAtoms sums = {atom->f ? atom->f[0] : nullptr, vflag_atom ? vatom : nullptr, cvflag_atom ? cvatom : nullptr};
  for (Worker &worker : workers) worker.totals = {}, worker.failure = nullptr;
  for_each_part([&](int part) {
    if (part == 0) evaluate_part(part, all_scalars, sums);
    else {
      workers[part].sums.begin(n_atoms, sums);
      evaluate_part(part, all_scalars, workers[part].sums);
    }
  });
  const int n = n_parts();
  if (n > 1)
    for_each_part([&](int part) {
      for (int other = 1; other < n; other++) {    // in this order, so that a run can be repeated to the last bit
        SumsOfThread &found = workers[other].sums;
        for (int page = part; page < found.n_pages(); page += n) found.hand_over(page, n_atoms, sums);
      }
    });
  raise_failure();
  add_totals();
  if (vflag_fdotr) virial_fdotr_compute();
}

int PairMTP::n_parts() const
{
  return comm->nthreads;
}

void PairMTP::for_each_part(const std::function<void(int)> &action) const
{
  const int n = n_parts();
#pragma omp parallel for schedule(static, 1) num_threads(n) if (n > 1)
  for (int part = 0; part < n; part++) action(part);
}

const int *PairMTP::centres() const
{
  return list->ilist;
}

PairMTP::Listed PairMTP::listed(int i) const
{
  return {list->numneigh[i], list->firstneigh[i], 1};
}

void PairMTP::sort_by_species()
{
  atoms_of_species.resize(model->potential.n_species);
  for (auto &atoms : atoms_of_species) atoms.clear();
  const int *const all = centres();
  for (int ii = 0; ii < list->inum; ii++) {
    const int i = all[ii], species = species_of_type[atom->type[i]];
    if (species >= 0) atoms_of_species[species].push_back(i);
  }
}

// A part of the atoms of each species
template <class Sums> void PairMTP::evaluate_part(int part, bool all_scalars, Sums &sums)
{
  const int n_all_parts = n_parts();
  for (int species = 0; species < static_cast<int>(atoms_of_species.size()); species++) {
    const auto &atoms = atoms_of_species[species];
    const int n = static_cast<int>(atoms.size());
    const bigint n_groups = (n + Sites::width - 1) / Sites::width;
    for (int k = n_groups * part / n_all_parts; k < n_groups * (part + 1) / n_all_parts; k++)
      evaluate_group(part, {species, std::min(Sites::width, n - k * Sites::width), &atoms[k * Sites::width]}, all_scalars, sums);
  }
}

template <class Sums> void PairMTP::evaluate_group(int part, const Group &group, bool all_scalars, Sums &sums)
{
  Worker &worker = workers[part];
  if (worker.failure) return;
  try {
    Listed neighbours[Sites::width];
    int most_neighbours = 0;
    for (int lane = 0; lane < group.n; lane++) {
      neighbours[lane] = listed(group.atoms[lane]);
      most_neighbours = std::max(most_neighbours, neighbours[lane].n);
    }
    worker.site.begin(group.species, most_neighbours);
    for (int lane = 0; lane < group.n; lane++) offer_neighbours(worker.site, lane, group.atoms[lane], neighbours[lane]);
    worker.site.evaluate(all_scalars);
    visit(part, group);
    for (int lane = 0; lane < group.n; lane++) book(worker.site, lane, group.atoms[lane], worker.totals, sums);
  } catch (...) {
    worker.failure = std::current_exception();
    worker.failed = group;
  }
}

void PairMTP::offer_neighbours(Sites &site, int lane, int i, const Listed &neighbours) const
{
  const double *const x = atom->x[0];    // contiguous
  const int *const type = atom->type, *const species = species_of_type.data(), *const first = neighbours.first;
  const std::ptrdiff_t stride = neighbours.stride;
  const double x_i[3] = {atom->x[i][0], atom->x[i][1], atom->x[i][2]};
  site.offer(lane, neighbours.n, [=](int k, double *r) {
    const int j = first[k * stride] & NEIGHMASK;
    for (int a = 0; a < 3; a++) r[a] = x[3 * static_cast<bigint>(j) + a] - x_i[a];
    return mtp::Named{species[type[j]], j};
  });
}

// The one place where V_i and g_j = dV_i/dr_ij, r_ij = r_j - r_i, become what LAMMPS sums: W_ab = -r_ij,a g_b and the forces. The per-atom virial
// takes the symmetric part of W, half on i and half on j, as LAMMPS' many-body styles do. The centroid virial stands on j alone: so sum_j W_j v_j is
// the potential part of the heat flux, d/dt sum_i r_i E_i without the convection.
template <class Sums> void PairMTP::book(const Sites &site, int lane, int i, Totals &totals, Sums &sums)
{
  const double unit = energy_unit;    // a store to forces might change a member for all that the compiler knows
  const bool any_virial = vflag_either, virial_of_atoms = vflag_atom || cvflag_atom;
  const double energy = unit * site.energy(lane);
  if (eflag_global) totals.energy += energy;
  if (eflag_atom) eatom[i] += energy;
  double of_i[3] = {0, 0, 0}, virial_of_i[6] = {0, 0, 0, 0, 0, 0};
  site.for_each_neighbour(lane, [&](int j, const double *r, const double *of_j) {
    const double g[3] = {unit * of_j[0], unit * of_j[1], unit * of_j[2]};
    for (int a = 0; a < 3; a++) of_i[a] += g[a];
    sums(Share{j, {-g[0], -g[1], -g[2]}});
    if (!any_virial) return;
    const double six[6] = {-r[0] * g[0],
                           -r[1] * g[1],
                           -r[2] * g[2],
                           -0.5 * (r[0] * g[1] + r[1] * g[0]),
                           -0.5 * (r[0] * g[2] + r[2] * g[0]),
                           -0.5 * (r[1] * g[2] + r[2] * g[1])};
    for (int k = 0; k < 6; k++) totals.virial[k] += six[k];
    if (!virial_of_atoms) return;
    VirialShare virial_of_j = {j, {}, {}};
    for (int k = 0; k < 6; k++) virial_of_i[k] += virial_of_j.six[k] = 0.5 * six[k];
    constexpr int first[9] = {0, 1, 2, 0, 0, 1, 1, 2, 2}, second[9] = {0, 1, 2, 1, 2, 2, 0, 0, 1};
    for (int k = 0; k < 9; k++) virial_of_j.nine[k] = -r[first[k]] * g[second[k]];
    sums(virial_of_j);
  });
  sums(Share{i, {of_i[0], of_i[1], of_i[2]}});
  if (!virial_of_atoms) return;
  VirialShare share = {i, {}, {}};
  std::copy(virial_of_i, virial_of_i + 6, share.six);
  sums(share);
}

void PairMTP::add_totals()
{
  for (const Worker &worker : workers) {
    eng_vdwl += worker.totals.energy;
    if (vflag_global)
      for (int k = 0; k < 6; k++) virial[k] += worker.totals.virial[k];
  }
}

void PairMTP::raise_failure()
{
  for (const Worker &worker : workers) {
    if (!worker.failure) continue;
    try {
      std::rethrow_exception(worker.failure);
    } catch (const mtp::SiteError &problem) {
      const int i = worker.failed.atoms[problem.lane];
      error->one(FLERR, "Pair style {} at step {}, atom {}: {}", style, update->ntimestep, atom->tag_enable ? atom->tag[i] : i + 1, problem.what());
    }
  }
}

double PairMTP::memory_usage()
{
  double bytes = Pair::memory_usage();
  for (const auto &worker : workers) bytes += static_cast<double>(worker.site.bytes() + worker.sums.bytes());
  for (const auto &atoms : atoms_of_species) bytes += static_cast<double>(atoms.capacity() * sizeof(int));
  return bytes;
}
