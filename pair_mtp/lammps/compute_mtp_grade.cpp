// SPDX-License-Identifier: GPL-2.0-or-later
#include "compute_mtp_grade.h"

#include "pair_mtp_extrapolation.h"

#include "atom.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "update.h"

#include <algorithm>
#include <string>

using namespace LAMMPS_NS;

ComputeMTPGrade::ComputeMTPGrade(LAMMPS *lmp, int narg, char **arg) : Compute(lmp, narg, arg)
{
  if (narg > 4) error->all(FLERR, "compute {} takes one argument: its number among the mtp/extrapolation styles of a hybrid", style);
  if (narg == 4) {
    number = utils::inumeric(FLERR, arg[3], false, lmp);
    if (number < 1) error->all(FLERR, "compute {}: the styles of a hybrid are counted from 1, not {}", style, number);
  }
  scalar_flag = 1;
  extscalar = 0;
  peratom_flag = 1;
  size_peratom_cols = 0;
  timeflag = 1;    // LAMMPS then says in advance on which steps it will be read
}

ComputeMTPGrade::~ComputeMTPGrade()
{
  memory->destroy(vector_atom);
}

void ComputeMTPGrade::init()
{
  find_pair();
  if (pair->grades_configurations() && igroup != 0)
    error->all(FLERR, "compute {}: the grade of a configuration is that of all its atoms; use group all", style);
}

void ComputeMTPGrade::find_pair()
{
  pair = PairMTPExtrapolation::find(*force, number);
  if (!pair)
    error->all(FLERR, "compute {} finds no pair style mtp/extrapolation{}; of several in a hybrid, name one by its number: compute {} all {} 1",
               style, number ? " with number " + std::to_string(number) : "", id, style);
}

// Between runs another pair style may have taken the place of the one that was found at the start of the last.
void ComputeMTPGrade::check_step()
{
  find_pair();
  if (pair->graded_step() != update->ntimestep)
    error->all(FLERR, "compute {}: grades were not computed on step {}, because nothing said in advance that they would be read there", style,
               update->ntimestep);
}

double ComputeMTPGrade::compute_scalar()
{
  invoked_scalar = update->ntimestep;
  check_step();
  if (igroup == 0) return scalar = pair->highest_grade();    // where grades are kept on a device, they need not come here
  const double *const grades = pair->grades();
  double mine = 0;
  for (int i = 0; i < atom->nlocal; i++)
    if (atom->mask[i] & groupbit) mine = std::max(mine, grades[i]);
  MPI_Allreduce(&mine, &scalar, 1, MPI_DOUBLE, MPI_MAX, world);
  return scalar;
}

void ComputeMTPGrade::compute_peratom()
{
  invoked_peratom = update->ntimestep;
  check_step();
  if (pair->grades_configurations())
    error->all(FLERR, "compute {}: the active set is of configuration mode, where atoms have no grades; c_{} is the configuration's", style, id);
  if (atom->nmax > n_allocated) {
    n_allocated = atom->nmax;
    memory->destroy(vector_atom);
    memory->create(vector_atom, n_allocated, "mtp/grade:vector_atom");
  }
  const double *const grades = pair->grades();
  for (int i = 0; i < atom->nlocal; i++) vector_atom[i] = atom->mask[i] & groupbit ? grades[i] : 0.0;
}

double ComputeMTPGrade::memory_usage()
{
  return static_cast<double>(n_allocated) * sizeof(double);
}
