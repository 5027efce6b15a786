// SPDX-License-Identifier: GPL-2.0-or-later
#include "fix_mtp_rollback.h"

#include "pair_mtp_extrapolation.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "fmt/format.h"
#include "force.h"
#include "modify.h"
#include "output.h"
#include "update.h"
#include "utils.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

using namespace LAMMPS_NS;

namespace {

// Fixes that can be put back, by what their state is made of.
const char *const can_be_put_back[] = {
    // nothing beyond atoms and box
    "nve", "nve/limit", "nve/noforce", "press/berendsen", "momentum", "setforce", "addforce", "aveforce", "lineforce", "planeforce", "enforce2d",
    "viscous", "wall/reflect", "print", "halt", "GROUP", "OMP",
    // what they write to restart files
    "nvt", "npt", "nph", "nvt/sllod", "deform", "temp/rescale", "temp/berendsen",
    // data of atoms, which travel with the atoms
    "pair", "spring/self", "property/atom", "STORE/ATOM",
    // a random stream, which goes on
    "langevin", "temp/csvr"};

constexpr int atom_data = 1024;    // doubles that LAMMPS lets a fix keep for an atom without asking (Comm's extra room)

// Whether what a fix writes to restart files is to be put back: that of temp/csvr would rewind its random stream
bool has_global_state(const Fix *other)
{
  return other->restart_global && strcmp(other->style, "temp/csvr") != 0;
}

std::size_t bytes_of(int datatype)
{
  return datatype == Atom::INT ? sizeof(int) : datatype == Atom::DOUBLE ? sizeof(double) : sizeof(bigint);
}

// The memory of this rank's n atoms in one of LAMMPS' per-atom arrays
struct AtomArray {
  char *first;
  std::size_t size;

  AtomArray(const Atom::PerAtom &described, int n)
  {
    const int columns = described.cols == 0 ? 1 : described.cols > 0 ? described.cols : *described.address_maxcols;
    void *const values = *static_cast<void **>(described.address);
    size = values ? bytes_of(described.datatype) * static_cast<std::size_t>(columns) * n : 0;
    first = size == 0 ? nullptr : static_cast<char *>(described.cols == 0 ? values : *static_cast<void **>(values));
  }
};

}    // namespace

FixMTPRollback::FixMTPRollback(LAMMPS *lmp, int narg, char **arg) : Fix(lmp, narg, arg)
{
  if (narg != 4 && narg != 6)
    error->all(FLERR, "fix {} takes the number of steps between two looks at the grades, and two grades at most: fix ID all {} N [G B]", style,
               style);
  if (igroup != 0) error->all(FLERR, "fix {}: a state is that of all atoms; use group all", style);
  nevery = utils::inumeric(FLERR, arg[3], false, lmp);
  if (nevery < 1) error->all(FLERR, "fix {}: the interval must be at least 1 step, not {}", style, nevery);
  if (narg == 6) {
    select_above = utils::numeric(FLERR, arg[4], false, lmp);
    break_above = utils::numeric(FLERR, arg[5], false, lmp);
    if (!(select_above > 0 && break_above >= select_above))
      error->all(FLERR, "fix {}: the second grade, {}, must not be lower than the first, {}, which must be above 0", style, arg[5], arg[4]);
  }
  scalar_flag = vector_flag = 1;
  size_vector = 1;
  global_freq = 1;
  extscalar = extvector = 0;
  dynamic_group_allow = 1;
  // With KOKKOS all data of the atoms are on the host where this fix is called in a run, and it changes none. Between runs, where it does, LAMMPS
  // takes those of the host for the newest.
  datamask_modify = 0;
}

int FixMTPRollback::setmask()
{
  return FixConst::END_OF_STEP | FixConst::POST_RUN;
}

void FixMTPRollback::init()
{
  if (update->whichflag == 2) error->all(FLERR, "fix {} {}: minimisers cannot be rolled back; unfix it before", style, id);
  if (utils::strmatch(update->integrate_style, "^respa"))
    error->all(FLERR, "fix {} {}: run_style respa cannot be rolled back; use verlet", style, id);
  if (atom->ellipsoid_flag || atom->line_flag || atom->tri_flag || atom->body_flag)
    error->all(FLERR, "fix {} {}: atoms with a shape (atom_style {}) cannot be rolled back", style, id, atom->get_style());
  check_fixes();
  find_styles();
  // fix pair lets a step be graded once, so a run that begins where the last one ended would begin without grades
  for (const Watched &watched : styles) {
    watched.style->ask_for_grades();
    if (select_above > 0) watched.style->watch(select_above, break_above);
  }
}

void FixMTPRollback::check_fixes()
{
  bool after = false;
  for (Fix *const other : modify->get_fix_list()) {
    if (other == this) {
      after = true;
      continue;
    }
    const std::string name = utils::strip_style_suffix(other->style, lmp);
    const auto known = std::find_if(std::begin(can_be_put_back), std::end(can_be_put_back), [&](const char *one) { return name == one; });
    if (known == std::end(can_be_put_back)) {
      std::string names;
      for (const char *const one : can_be_put_back) names += (names.empty() ? "" : ", ") + std::string(one);
      error->all(FLERR, "fix {} {}: fix {} of style {} cannot be rolled back; those that can: {}", style, id, other->id, other->style, names);
    }
    if (keeps_atoms_on_a_device(other))
      error->all(FLERR, "fix {} {}: fix {} of style {} keeps data of atoms on the device and cannot be rolled back; take {}", style, id, other->id,
                 other->style, name);
    if (after && (modify->get_fix_mask(other) & FixConst::END_OF_STEP))
      error->all(FLERR,
                 "fix {} {}: fix {} of style {} comes after it and would change the state at the end of a step once it is kept; give fix {} last",
                 style, id, other->id, other->style, style);
  }
}

// What LAMMPS' own arrays hold comes to the host with them; what a fix of the KOKKOS package keeps by itself may not.
bool FixMTPRollback::keeps_atoms_on_a_device(const Fix *other) const
{
  if (!other->kokkosable || utils::strmatch(other->style, "^property/atom")) return false;
  for (int k = 0; k < atom->nextra_grow; k++)
    if (modify->fix[atom->extra_grow[k]] == other) return true;
  return false;
}

void FixMTPRollback::find_styles()
{
  styles.clear();
  if (auto *const only = PairMTPExtrapolation::find(*force, 0)) styles.push_back({only, false});
  for (int number = 1; styles.empty() || number > 1; number++) {    // several in a hybrid
    auto *const one = PairMTPExtrapolation::find(*force, number);
    if (!one) break;
    styles.push_back({one, false});
  }
  if (styles.empty()) error->all(FLERR, "fix {} {} finds no pair style mtp/extrapolation, whose grades tell which states to keep", style, id);
}

// A run that does not begin where the last one ended is a new beginning, kept in any case.
void FixMTPRollback::setup(int)
{
  for (Watched &watched : styles) watched.has_watch = watched.style->watched();
  const bool goes_on = kept.step >= 0 && update->ntimestep == left_at && atom->natoms == kept.n_atoms;
  if (!goes_on || trusted()) keep();
}

void FixMTPRollback::end_of_step()
{
  if (trusted()) keep();
}

void FixMTPRollback::post_run()
{
  left_at = update->ntimestep;
}

bool FixMTPRollback::trusted() const
{
  return std::all_of(styles.begin(), styles.end(), [](const Watched &watched) { return !watched.has_watch || watched.style->trusted(); });
}

void FixMTPRollback::keep()
{
  kept.step = update->ntimestep;
  kept.n_atoms = atom->natoms;
  kept.n_bonds = atom->nbonds, kept.n_angles = atom->nangles, kept.n_dihedrals = atom->ndihedrals, kept.n_impropers = atom->nimpropers;
  kept.time = update->atime + (update->ntimestep - update->atimestep) * update->dt;
  kept.triclinic = domain->triclinic;
  std::copy(domain->boxlo, domain->boxlo + 3, kept.low);
  std::copy(domain->boxhi, domain->boxhi + 3, kept.high);
  kept.tilt[0] = domain->xy, kept.tilt[1] = domain->xz, kept.tilt[2] = domain->yz;

  kept.n_local = atom->nlocal;
  kept.arrays.resize(atom->peratom.size());
  for (std::size_t k = 0; k < kept.arrays.size(); k++) {
    const AtomArray array(atom->peratom[k], kept.n_local);
    kept.arrays[k].assign(array.first, array.first + array.size);
  }

  const auto &fixes = modify->get_fix_list();
  kept.fixes.resize(fixes.size());
  for (std::size_t k = 0; k < fixes.size(); k++) keep_fix(fixes[k], kept.fixes[k]);
}

void FixMTPRollback::keep_fix(Fix *other, FixState &state)
{
  state.id = other->id;
  state.of_atoms.clear();
  for (int k = 0; k < atom->nextra_grow; k++) {
    if (modify->fix[atom->extra_grow[k]] != other) continue;
    std::size_t used = 0;
    for (int i = 0; i < atom->nlocal; i++) {
      state.of_atoms.resize(used + atom_data + other->maxexchange);
      used += other->pack_exchange(i, &state.of_atoms[used]);
    }
    state.of_atoms.resize(used);
  }

  state.global.clear();
  if (!has_global_state(other)) return;
  char *text = nullptr;
  std::size_t size = 0;
  FILE *const file = comm->me == 0 ? open_memstream(&text, &size) : nullptr;
  if (comm->me == 0 && !file) error->one(FLERR, "fix {} {}: out of memory", style, id);
  other->write_restart(file);    // by all ranks: some gather
  if (!file) return;
  fclose(file);
  state.global.assign(text, text + size);
  free(text);
}

int FixMTPRollback::modify_param(int narg, char **arg)
{
  if (narg < 1 || strcmp(arg[0], "restore") != 0) return 0;
  put_back();
  return 1;
}

void FixMTPRollback::put_back()
{
  check_snapshot();
  const bigint from = update->ntimestep;
  // a flip of the box that fix deform has decided on would come in the next run, to a box that needs none
  for (Fix *const other : modify->get_fix_by_style("^deform")) other->pre_exchange();
  put_back_atoms();
  put_back_fixes();
  put_back_step();
  for (const Watched &watched : styles) watched.style->forget_grades();
  left_at = kept.step;
  if (comm->me == 0) utils::logmesg(lmp, fmt::format("Rolled back from step {} to step {}\n", from, kept.step));
}

void FixMTPRollback::check_snapshot()
{
  if (update->whichflag != 0) error->all(FLERR, "fix {} {}: nothing can be rolled back inside a run", style, id);
  if (kept.step < 0) error->all(FLERR, "fix {} {}: no state was kept yet; the first is that of the beginning of a run", style, id);
  if (kept.triclinic != domain->triclinic)
    error->all(FLERR, "fix {} {}: the box of step {} was {}triclinic, and is not any more", style, id, kept.step, kept.triclinic ? "" : "not ");
  const auto &fixes = modify->get_fix_list();
  const auto same = [](const FixState &state, const Fix *other) { return state.id == other->id; };
  if (kept.arrays.size() != atom->peratom.size() || !std::equal(kept.fixes.begin(), kept.fixes.end(), fixes.begin(), fixes.end(), same))
    error->all(FLERR, "fix {} {}: fixes were added or taken away since step {}, whose state was kept; roll back before", style, id, kept.step);
}

// Each rank puts back the atoms that it had: wherever they are now, each comes back once.
void FixMTPRollback::put_back_atoms()
{
  if (kept.n_local > atom->nmax) error->one(FLERR, "fix {} {}: the arrays of atoms have shrunk since step {}", style, id, kept.step);
  if (atom->map_style != Atom::MAP_NONE) atom->map_clear();
  for (std::size_t k = 0; k < kept.arrays.size(); k++) {
    const AtomArray array(atom->peratom[k], kept.n_local);
    if (array.size != kept.arrays[k].size())
      error->one(FLERR, "fix {} {}: the array {} has another width than at step {}", style, id, atom->peratom[k].name, kept.step);
    std::copy(kept.arrays[k].begin(), kept.arrays[k].end(), array.first);
  }
  atom->nlocal = kept.n_local;
  atom->nghost = 0;    // the next run finds them anew
  atom->natoms = kept.n_atoms;
  atom->nbonds = kept.n_bonds, atom->nangles = kept.n_angles, atom->ndihedrals = kept.n_dihedrals, atom->nimpropers = kept.n_impropers;

  std::copy(kept.low, kept.low + 3, domain->boxlo);
  std::copy(kept.high, kept.high + 3, domain->boxhi);
  domain->xy = kept.tilt[0], domain->xz = kept.tilt[1], domain->yz = kept.tilt[2];
  domain->set_initial_box(0);
  domain->set_global_box();
  domain->set_local_box();

  if (atom->map_style != Atom::MAP_NONE) {
    atom->map_init();
    atom->map_set();
  }
}

void FixMTPRollback::put_back_fixes()
{
  const auto &fixes = modify->get_fix_list();
  for (std::size_t k = 0; k < fixes.size(); k++) {
    FixState &state = kept.fixes[k];
    if (!state.of_atoms.empty())
      for (int i = 0, used = 0; i < kept.n_local; i++) used += fixes[k]->unpack_exchange(i, &state.of_atoms[used]);

    if (!has_global_state(fixes[k])) continue;
    int size = static_cast<int>(state.global.size());
    MPI_Bcast(&size, 1, MPI_INT, 0, world);
    if (size < static_cast<int>(sizeof(int))) continue;    // it wrote nothing
    std::vector<char> global = state.global;
    global.resize(size);
    MPI_Bcast(global.data(), size, MPI_CHAR, 0, world);
    // as in a restart file, the length comes first; a copy into doubles aligns the rest
    std::vector<double> content(size / sizeof(double) + 1);
    std::memcpy(content.data(), global.data() + sizeof(int), size - sizeof(int));
    fixes[k]->restart(reinterpret_cast<char *>(content.data()));
  }
}

void FixMTPRollback::put_back_step()
{
  // between runs LAMMPS refuses to set the step where a dump is open: its file then has steps twice, which here is what a reader is told by the log
  const int between_runs = update->whichflag;
  update->whichflag = 1;
  update->reset_timestep(kept.step, false);
  update->whichflag = between_runs;
  update->atime = kept.time;
  update->atimestep = kept.step;
  update->first_update = 0;    // the next run needs a setup, even where `run ... pre no` would leave it out
  for (int k = 0; k < output->ndump; k++) {
    bigint &last = output->last_dump[k];
    const int every = output->every_dump[k];
    // the frame of this very step stands in the file already
    if (last > kept.step) last = every > 0 && kept.step % every == 0 ? kept.step : kept.step - 1;
  }
  output->last_restart = std::min(output->last_restart, kept.step);
}

double FixMTPRollback::compute_scalar()
{
  return static_cast<double>(kept.step);
}

double FixMTPRollback::compute_vector(int)
{
  bigint step = -1;
  for (const Watched &watched : styles) step = std::max(step, watched.style->break_step());
  return static_cast<double>(step);
}

double FixMTPRollback::memory_usage()
{
  std::size_t bytes = 0;
  for (const auto &array : kept.arrays) bytes += array.capacity();
  for (const FixState &state : kept.fixes) bytes += state.of_atoms.capacity() * sizeof(double) + state.global.capacity();
  return static_cast<double>(bytes);
}
