// SPDX-License-Identifier: GPL-2.0-or-later
// compute mtp/grade: the extrapolation grades of a pair style mtp/extrapolation on the steps on which they are read.
//
//   compute ID group mtp/grade            c_ID: highest grade in the group; as a per-atom vector, each atom's
//   compute ID group mtp/grade N          of the N-th mtp/extrapolation of a hybrid
//
// In configuration mode c_ID is the configuration's grade, the group must be all, and there is no per-atom vector.
#ifndef LMP_COMPUTE_MTP_GRADE_H
#define LMP_COMPUTE_MTP_GRADE_H

#include "compute.h"

namespace LAMMPS_NS {

class PairMTPExtrapolation;

class ComputeMTPGrade : public Compute {
 public:
  ComputeMTPGrade(class LAMMPS *lmp, int narg, char **arg);
  ~ComputeMTPGrade() override;

  void init() override;
  double compute_scalar() override;
  void compute_peratom() override;
  double memory_usage() override;

  bool reads(const PairMTPExtrapolation *style) const { return style == pair; }

 private:
  int number = 0;    // among the styles of a hybrid; 0: there is one
  PairMTPExtrapolation *pair = nullptr;
  int n_allocated = 0;

  void find_pair();
  void check_step();
};

}    // namespace LAMMPS_NS

#endif
