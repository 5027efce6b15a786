// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style mtp/extrapolation: as mtp, and the extrapolation grade where it is asked for. The potential needs an active set.
//
//   fix g all pair 10 mtp/extrapolation gamma 1      computes grades every 10 steps; f_g is the per-atom grade
//   compute c all pair mtp/extrapolation             c_c[1] is the highest grade (configuration mode: the configuration's) when last computed
//
// In neighbourhood mode each atom has its own grade; in configuration mode all atoms that this style handles carry the configuration's. Atoms of
// other styles carry 0.
#ifndef LMP_PAIR_MTP_EXTRAPOLATION_H
#define LMP_PAIR_MTP_EXTRAPOLATION_H

#include "pair_mtp.h"

#include "../core/grader.hpp"

namespace LAMMPS_NS {

class PairMTPExtrapolation : public PairMTP {
 public:
  explicit PairMTPExtrapolation(class LAMMPS *lmp);
  ~PairMTPExtrapolation() override;

  void compute(int eflag, int vflag) override;
  void finish() override;
  void *extract(const char *name, int &dim) override;
  void *extract_peratom(const char *name, int &ncol) override;
  double memory_usage() override;

 protected:
  void require(const mtp::Potential &potential, const std::string &name) override;
  void use_current_model() override;
  void visit(int species, const int *atoms, int n) override;

 private:
  int gamma_flag = 0;           // set to 1 by `fix pair` for the steps that want grades
  bool grading = false;         // whether the step under way computes them
  bool stopped_run = false;     // by this style, which then lets later runs start
  std::vector<double> gamma;    // [nmax]
  std::unique_ptr<mtp::Grader> grader;
  mtp::Scratch<double> rows;    // dV_i/dtheta of a group
  std::vector<double> sum;      // configuration mode: of the rows of this rank's atoms
  bigint n_graded = 0;          // this rank's atoms so far

  void begin_grades();
  void end_grades();
  double configuration_grade();
  void report(double highest_here);
  mtp::FlaggedConfiguration snapshot(double grade) const;
};

}    // namespace LAMMPS_NS

#endif
