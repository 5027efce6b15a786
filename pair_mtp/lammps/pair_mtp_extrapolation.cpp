// SPDX-License-Identifier: GPL-2.0-or-later
#include "pair_mtp_extrapolation.h"

#include "compute_mtp_grade.h"

#include "../capi/mtp.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "modify.h"
#include "timer.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

using namespace LAMMPS_NS;

PairMTPExtrapolation::PairMTPExtrapolation(LAMMPS *lmp) : PairMTP(lmp, "mtp/extrapolation")
{
  nextra = 1;
  pvector = new double[1]();
}

PairMTPExtrapolation::~PairMTPExtrapolation()
{
  delete[] pvector;
}

void PairMTPExtrapolation::require(const mtp::Potential &potential, const std::string &name)
{
  if (!potential.active_set)
    error->all(FLERR, "Pair style {}: {} holds no active set, from which grades are computed; `mtp select` builds one", style, name);
}

void PairMTPExtrapolation::use_current_model()
{
  const auto before = model;
  PairMTP::use_current_model();
  if (model != before) {
    grader = std::make_unique<mtp::Grader>(*model->potential.active_set, model->plan.view());
    rows.clear();
  }
  while (rows.size() < workers.size()) {
    rows.emplace_back();
    rows.back().of_group.require(static_cast<std::size_t>(workers[0].site.n_active()) * mtp::pack_width);
  }
}

void PairMTPExtrapolation::compute(int eflag, int vflag)
{
  use_current_model();
  grading = gamma_flag != 0 || asked || compute_asks();
  asked = false;
  if (grading) begin_grades();
  evaluate_atoms(eflag, vflag, grading);
  if (grading) end_grades();
}

// As for energies and virials, LAMMPS has told the computes beforehand on which steps they will be read.
bool PairMTPExtrapolation::compute_asks() const
{
  for (Compute *const compute : modify->get_compute_list()) {
    auto *const grade = dynamic_cast<ComputeMTPGrade *>(compute);
    if (grade && grade->reads(this) && grade->matchstep(update->ntimestep)) return true;
  }
  return false;
}

void PairMTPExtrapolation::begin_grades()
{
  gamma.assign(std::max(atom->nmax, 1), 0.0);
  for (Rows &of_part : rows) {
    of_part.sum.assign(model->potential.n_parameters(), 0.0);
    of_part.n_atoms = 0;
  }
}

bool PairMTPExtrapolation::grades_configurations() const
{
  return live->current_model()->potential.active_set->mode == mtp::ActiveSetMode::configuration;
}

void PairMTPExtrapolation::visit(int part, const Group &group)
{
  if (!grading) return;
  Sites &site = workers[part].site;
  Rows &mine = rows[part];
  double *const of_group = mine.of_group.get();
  site.parameter_gradient(of_group);
  mine.n_atoms += group.n;
  if (model->potential.active_set->mode == mtp::ActiveSetMode::neighbourhood) {
    double grades[mtp::pack_width];
    grader->grade(group.species, of_group, grades);
    for (int lane = 0; lane < group.n; lane++) {
      if (!std::isfinite(grades[lane])) throw mtp::SiteError(lane, "the extrapolation grade is not finite");
      gamma[group.atoms[lane]] = grades[lane];
    }
  } else {
    for (int k = 0; k < site.n_active(); k++)
      for (int lane = 0; lane < group.n; lane++) mine.sum[site.place_of_active(group.species, k)] += of_group[k * mtp::pack_width + lane];
  }
}

void PairMTPExtrapolation::end_grades()
{
  if (model->potential.active_set->mode == mtp::ActiveSetMode::configuration) {
    const double grade = configuration_grade();
    for (int i = 0; i < atom->nlocal; i++)
      if (species_of_type[atom->type[i]] >= 0) gamma[i] = grade;
  }
  last_graded = update->ntimestep;
  report();
}

PairMTPExtrapolation::SumOfRows PairMTPExtrapolation::sum_of_rows() const
{
  SumOfRows all = {std::vector<double>(model->potential.n_parameters()), 0};
  for (const Rows &of_part : rows) {
    all.n_atoms += of_part.n_atoms;
    for (std::size_t k = 0; k < all.sum.size(); k++) all.sum[k] += of_part.sum[k];
  }
  return all;
}

double PairMTPExtrapolation::configuration_grade()
{
  auto [sum, n_atoms] = sum_of_rows();
  MPI_Allreduce(MPI_IN_PLACE, &n_atoms, 1, MPI_LMP_BIGINT, MPI_SUM, world);
  MPI_Allreduce(MPI_IN_PLACE, sum.data(), static_cast<int>(sum.size()), MPI_DOUBLE, MPI_SUM, world);
  if (n_atoms == 0) return 0;
  for (double &derivative : sum) derivative /= static_cast<double>(n_atoms);
  const double grade = model->potential.active_set->grade(sum.data());
  if (!std::isfinite(grade)) error->all(FLERR, "Pair style {}: the extrapolation grade of the configuration is not finite", style);
  return grade;
}

// Tells the live style, and with it whoever watches. One reduction serves the highest grade, the settings of the watch and the room left, so that
// every rank decides alike even where a driver set the watch on some ranks only.
void PairMTPExtrapolation::report()
{
  const double infinity = std::numeric_limits<double>::infinity();
  const bool of_configuration = model->potential.active_set->mode == mtp::ActiveSetMode::configuration;
  double local[5] = {-(of_configuration ? *std::max_element(gamma.begin(), gamma.end()) : highest_of_atoms()), infinity, infinity, infinity,
                     infinity},
         least[5];
  {
    const std::lock_guard<std::mutex> lock(live->mutex);
    if (live->select_above > 0) {
      local[1] = live->select_above;
      local[2] = live->break_above;
      local[3] = static_cast<double>(live->capacity) - static_cast<double>(live->flagged.size());
      local[4] = -live->radius;
    }
  }
  MPI_Allreduce(local, least, 5, MPI_DOUBLE, MPI_MIN, world);
  highest = -least[0];
  none_passes = highest <= least[1];
  const double radius = -least[4];
  const bool whole = radius <= 0 || of_configuration;
  const auto centres = none_passes || whole ? std::vector<GradedAtom>() : choose_centres(least[1]);
  if (comm->me == 0) pvector[0] = highest;    // compute pair sums over the ranks

  const std::lock_guard<std::mutex> lock(live->mutex);
  live->count(highest);
  auto room = static_cast<std::int64_t>(std::min(least[3], 1e15));
  if (!none_passes && whole) keep(room, highest, [&] { return configuration(highest); });
  for (const GradedAtom &centre : centres) keep(room--, centre.grade, [&] { return neighbourhood(centre, radius); });
  if (highest > least[2]) {
    live->break_step = update->ntimestep;
    timer->force_timeout();    // the run ends with this step
    stopped_run = true;
  }
}

// Grades of the same environment differ by rounding from one number of ranks to another: seven digits decide, then the tag.
bool GradedAtom::before(const GradedAtom &other) const
{
  const auto mine = static_cast<float>(grade), others = static_cast<float>(other.grade);
  return mine > others || (mine == others && tag < other.tag);
}

// Collective: in each round every rank offers its best atom that is left, and the best of all is taken.
std::vector<GradedAtom> PairMTPExtrapolation::choose_centres(double select_above) const
{
  std::vector<GradedAtom> left = atoms_above(select_above), chosen, offers(comm->nprocs);
  const Images near(*domain, model->potential.cutoff);
  const auto by_rank = [](const GradedAtom &l, const GradedAtom &r) { return l.before(r); };
  while (chosen.size() < MTP_CENTRES_PER_STEP) {
    const auto best = std::min_element(left.begin(), left.end(), by_rank);
    GradedAtom mine = best == left.end() ? GradedAtom() : *best;    // LAMMPS' stand-in for MPI takes no const
    MPI_Allgather(&mine, sizeof(GradedAtom), MPI_BYTE, offers.data(), sizeof(GradedAtom), MPI_BYTE, world);
    const GradedAtom next = *std::min_element(offers.begin(), offers.end(), by_rank);
    if (next.grade <= 0) break;
    chosen.push_back(next);
    const auto too_close = [&](const GradedAtom &other) {
      const double vector[3] = {other.x[0] - next.x[0], other.x[1] - next.x[1], other.x[2] - next.x[2]};
      return near.any(vector);
    };
    left.erase(std::remove_if(left.begin(), left.end(), too_close), left.end());
  }
  return chosen;
}

// The most extrapolative stay, alike on all ranks because grades and room are those of all ranks.
void PairMTPExtrapolation::keep(std::int64_t room, double grade, const std::function<mtp::Flagged()> &taken)
{
  auto &kept = live->flagged;
  if (room >= 1) {
    kept.push_back(taken());
    return;
  }
  const auto least = std::min_element(kept.begin(), kept.end(), [](const auto &l, const auto &r) { return l.grade < r.grade; });
  if (least != kept.end() && least->grade < grade) *least = taken();
  live->n_dropped++;
}

// An atom, or an image of it
static void add(const GradedAtom &atom, const double *position, mtp::Flagged &kept)
{
  kept.tags.push_back(static_cast<std::int64_t>(atom.tag));
  kept.species.push_back(static_cast<std::int32_t>(atom.species));
  kept.grades.push_back(atom.grade);
  kept.positions.insert(kept.positions.end(), position, position + 3);
}

mtp::Flagged PairMTPExtrapolation::configuration(double grade) const
{
  mtp::Flagged kept = nothing_yet(grade);
  for (const GradedAtom &atom : atoms_above(-1)) add(atom, atom.x, kept);
  return kept;
}

mtp::Flagged PairMTPExtrapolation::neighbourhood(const GradedAtom &centre, double radius) const
{
  mtp::Flagged kept = nothing_yet(centre.grade);
  kept.centre = static_cast<std::int64_t>(centre.tag);
  const Images within(*domain, radius);
  for (const GradedAtom &atom : atoms_near(centre.x, within)) {
    const double vector[3] = {atom.x[0] - centre.x[0], atom.x[1] - centre.x[1], atom.x[2] - centre.x[2]};
    within.of(vector, [&](const double *image) { add(atom, image, kept); });
  }
  return kept;
}

mtp::Flagged PairMTPExtrapolation::nothing_yet(double grade) const
{
  mtp::Flagged kept;
  const double *const h = domain->h;    // xx yy zz yz xz xy
  const double cell[9] = {h[0], 0, 0, h[5], h[1], 0, h[4], h[3], h[2]};
  kept.step = update->ntimestep;
  kept.grade = grade;
  std::copy(cell, cell + 9, kept.cell);
  std::copy(domain->boxlo, domain->boxlo + 3, kept.origin);
  std::copy(domain->periodicity, domain->periodicity + 3, kept.periodic);
  return kept;
}

GradedAtom PairMTPExtrapolation::graded_atom(int i) const
{
  const double *const x = atom->x[i];
  return {
      gamma[i], atom->tag_enable ? static_cast<double>(atom->tag[i]) : 0.0, static_cast<double>(species_of_type[atom->type[i]]), {x[0], x[1], x[2]}};
}

double PairMTPExtrapolation::highest_of_atoms() const
{
  return *std::max_element(gamma.begin(), gamma.end());
}

std::vector<GradedAtom> PairMTPExtrapolation::atoms_above(double grade) const
{
  std::vector<GradedAtom> found;
  for (int i = 0; i < atom->nlocal; i++)
    if (gamma[i] > grade) found.push_back(graded_atom(i));
  return found;
}

std::vector<GradedAtom> PairMTPExtrapolation::atoms_near(const double *, const Images &) const
{
  return atoms_above(-1);
}

PairMTPExtrapolation *PairMTPExtrapolation::find(Force &force, int number)
{
  for (const char *const variant : {"", "/kk", "/kk/device", "/kk/host"})
    if (auto *const found = dynamic_cast<PairMTPExtrapolation *>(force.pair_match(std::string("mtp/extrapolation") + variant, 1, number)))
      return found;
  return nullptr;
}

void PairMTPExtrapolation::watch(double select_above, double break_above)
{
  const std::lock_guard<std::mutex> lock(live->mutex);
  live->select_above = select_above;
  live->break_above = break_above;
  live->capacity = 0;
}

bigint PairMTPExtrapolation::break_step() const
{
  const std::lock_guard<std::mutex> lock(live->mutex);
  return live->break_step;
}

bool PairMTPExtrapolation::watched() const
{
  int any;
  {
    const std::lock_guard<std::mutex> lock(live->mutex);
    any = live->select_above > 0;
  }
  MPI_Allreduce(MPI_IN_PLACE, &any, 1, MPI_INT, MPI_MAX, world);
  return any;
}

bool PairMTPExtrapolation::trusted() const
{
  return last_graded == update->ntimestep && none_passes;
}

// A run ends here.
void PairMTPExtrapolation::finish()
{
  if (!stopped_run) return;
  stopped_run = false;
  timer->reset_timeout();
  // with KOKKOS, a run that was stopped in its setup has taken that for the user's own setting, and later runs would not start
  std::string words[] = {"timeout", "off"};
  char *arguments[] = {&words[0][0], &words[1][0]};
  if (timer->is_timeout()) timer->modify_params(2, arguments);
}

void *PairMTPExtrapolation::extract(const char *name, int &dim)
{
  dim = 0;
  return strcmp(name, "gamma_flag") == 0 ? &gamma_flag : nullptr;
}

void *PairMTPExtrapolation::extract_peratom(const char *name, int &ncol)
{
  ncol = 0;
  return strcmp(name, "gamma") == 0 ? const_cast<double *>(grades()) : nullptr;
}

double PairMTPExtrapolation::memory_usage()
{
  double bytes = PairMTP::memory_usage() + static_cast<double>(gamma.capacity() * sizeof(double));
  for (const Rows &of_part : rows) bytes += static_cast<double>(of_part.of_group.bytes() + of_part.sum.capacity() * sizeof(double));
  return bytes;
}
