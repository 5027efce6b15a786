// SPDX-License-Identifier: GPL-2.0-or-later
// fix mtp/hnemd: the driving force of homogeneous non-equilibrium molecular dynamics (HNEMD) for any pair style with centroid virial.
//
//   fix ID all mtp/hnemd Fx Fy Fz     driving field, 1/distance
//
// Atom j, of type t, feels
//
//   F_j,b = sum_a Fe_a [(E_j - <E>_t) delta_ab + W_j,ab] - (m_j / M) (the sum of this over all atoms),
//
// with the centroid virial W_j that also makes the heat flux (PairMTP::book), E_j the atom's kinetic and potential energy and <E>_t its mean over
// the atoms of the type, on the step. Where the centre of mass rests, the forces do the work J · Fe, J = sum_j [(E_j - <E>_t) v_j + W_j v_j]. Fan,
// Dong, Harju, Ala-Nissila, Phys. Rev. B 99, 064308 (2019), eq. 8, of which the last two terms are a choice of gauge and of frame.
//
// f_ID[1 ... 3]: J of the step, energy · distance / time.
#ifndef LMP_FIX_MTP_HNEMD_H
#define LMP_FIX_MTP_HNEMD_H

#include "fix.h"

#include <string>
#include <vector>

namespace LAMMPS_NS {

class FixMTPHNEMD : public Fix {
 public:
  FixMTPHNEMD(class LAMMPS *lmp, int narg, char **arg);
  ~FixMTPHNEMD() override;

  int setmask() override;
  void init() override;
  void setup(int vflag) override;
  void post_force(int vflag) override;
  double compute_vector(int component) override;

 private:
  double field[3];
  std::string energy_id, virial_id;
  class Compute *potential_energy = nullptr, *virial = nullptr;
  std::vector<double> energies;    // [nlocal]: E_j - <E>_t
  double flux[3] = {0, 0, 0};
  bigint flux_step = -1;

  void read_atoms();
  double mass(int i) const;
};

}    // namespace LAMMPS_NS

#endif
