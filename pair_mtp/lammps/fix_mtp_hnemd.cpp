// SPDX-License-Identifier: GPL-2.0-or-later
#include "fix_mtp_hnemd.h"

#include "atom.h"
#include "compute.h"
#include "error.h"
#include "force.h"
#include "modify.h"
#include "update.h"

using namespace LAMMPS_NS;
using namespace FixConst;

// Of compute centroid/stress/atom: xx yy zz xy xz yz yx zx zy, the first index that of the distance
static constexpr int component_of[3][3] = {{0, 3, 4}, {6, 1, 5}, {7, 8, 2}};

FixMTPHNEMD::FixMTPHNEMD(LAMMPS *lmp, int narg, char **arg)
    : Fix(lmp, narg, arg), energy_id(std::string(id) + "_energy"), virial_id(std::string(id) + "_virial")
{
  if (narg != 6) error->all(FLERR, "fix {} takes the driving field: fix ID all {} Fx Fy Fz (1/distance)", style, style);
  if (igroup != 0) error->all(FLERR, "fix {} drives the whole system: use group all", style);
  for (int a = 0; a < 3; a++) field[a] = utils::numeric(FLERR, arg[3 + a], false, lmp);
  vector_flag = 1;
  size_vector = 3;
  extvector = 1;
  global_freq = 1;
  potential_energy = modify->add_compute(energy_id + " all pe/atom pair");
  virial = modify->add_compute(virial_id + " all centroid/stress/atom NULL pair");
}

FixMTPHNEMD::~FixMTPHNEMD()
{
  // LAMMPS may have deleted them before, at its end
  if (modify->get_compute_by_id(energy_id)) modify->delete_compute(energy_id);
  if (modify->get_compute_by_id(virial_id)) modify->delete_compute(virial_id);
}

int FixMTPHNEMD::setmask()
{
  return POST_FORCE;
}

void FixMTPHNEMD::init()
{
  potential_energy = modify->get_compute_by_id(energy_id);
  virial = modify->get_compute_by_id(virial_id);
  if (!potential_energy || !virial) error->all(FLERR, "fix {}: its compute {} or {} was deleted", style, energy_id, virial_id);
  if (!force->pair || force->kspace || force->bond || force->angle || force->dihedral || force->improper)
    error->all(FLERR, "fix {} needs a pair style, and forces from nothing beside it", style);
  if (utils::strmatch(update->integrate_style, "^respa")) error->all(FLERR, "fix {} does not work with run_style respa", style);
}

void FixMTPHNEMD::setup(int vflag)
{
  post_force(vflag);
}

double FixMTPHNEMD::mass(int i) const
{
  return atom->rmass ? atom->rmass[i] : atom->mass[atom->type[i]];
}

// Energies and virials of the atoms on this step, with the velocities that they have now
void FixMTPHNEMD::read_atoms()
{
  const bigint step = update->ntimestep;
  for (Compute *compute : {potential_energy, virial})
    if (compute->invoked_peratom != step) compute->compute_peratom();

  const int n = atom->nlocal, n_types = atom->ntypes;
  std::vector<double> mine(2 * (n_types + 1), 0.0), all(mine.size());    // sums of energies, then numbers of atoms, by type
  energies.resize(n);
  for (int i = 0; i < n; i++) {
    const double *v = atom->v[i];
    energies[i] = potential_energy->vector_atom[i] + 0.5 * force->mvv2e * mass(i) * (v[0] * v[0] + v[1] * v[1] + v[2] * v[2]);
    mine[atom->type[i]] += energies[i];
    mine[n_types + 1 + atom->type[i]] += 1;
  }
  MPI_Allreduce(mine.data(), all.data(), static_cast<int>(mine.size()), MPI_DOUBLE, MPI_SUM, world);
  for (int i = 0; i < n; i++) energies[i] -= all[atom->type[i]] / all[n_types + 1 + atom->type[i]];
}

void FixMTPHNEMD::post_force(int /*vflag*/)
{
  read_atoms();
  flux_step = -1;
  const int n = atom->nlocal;
  double mine[4] = {0, 0, 0, 0}, all[4];    // sum of the driving forces, and of the masses
  const auto drive = [this](int i, int b) {
    double along = field[b] * energies[i];
    for (int a = 0; a < 3; a++) along -= field[a] * virial->array_atom[i][component_of[a][b]] / force->nktv2p;    // LAMMPS' stress is -W
    return along;
  };
  for (int i = 0; i < n; i++) {
    for (int b = 0; b < 3; b++) {
      const double along = drive(i, b);
      atom->f[i][b] += along;
      mine[b] += along;
    }
    mine[3] += mass(i);
  }
  MPI_Allreduce(mine, all, 4, MPI_DOUBLE, MPI_SUM, world);
  for (int i = 0; i < n; i++)
    for (int b = 0; b < 3; b++) atom->f[i][b] -= mass(i) / all[3] * all[b];
  for (Compute *compute : {potential_energy, virial}) compute->addstep(update->ntimestep + 1);
}

// Asked for at the end of a step, when velocities and positions are of the same time
double FixMTPHNEMD::compute_vector(int component)
{
  if (flux_step != update->ntimestep) {
    read_atoms();
    double mine[3] = {0, 0, 0};
    for (int i = 0; i < atom->nlocal; i++) {
      const double *v = atom->v[i];
      for (int a = 0; a < 3; a++) {
        mine[a] += energies[i] * v[a];
        for (int b = 0; b < 3; b++) mine[a] -= virial->array_atom[i][component_of[a][b]] / force->nktv2p * v[b];
      }
    }
    MPI_Allreduce(mine, flux, 3, MPI_DOUBLE, MPI_SUM, world);
    flux_step = update->ntimestep;
  }
  return flux[component];
}
