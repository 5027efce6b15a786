// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style mtp/extrapolation: as mtp, and the extrapolation grade where it is asked for. The potential needs an active set.
//
//   compute g all mtp/grade                          asks for grades on the steps on which it is read: compute_mtp_grade.h
//   fix g all pair 10 mtp/extrapolation gamma 1      computes grades every 10 steps; f_g is the per-atom grade
//   compute c all pair mtp/extrapolation             c_c[1] is the highest grade (configuration mode: the configuration's) when last computed
//
// In neighbourhood mode each atom has its own grade; in configuration mode all atoms that this style handles carry the configuration's. Atoms of
// other styles carry 0.
#ifndef LMP_PAIR_MTP_EXTRAPOLATION_H
#define LMP_PAIR_MTP_EXTRAPOLATION_H

#include "pair_mtp.h"

#include "../core/grader.hpp"
#include "images.hpp"

#include <cstdint>
#include <functional>
#include <vector>

namespace LAMMPS_NS {

struct GradedAtom {
  double grade = 0, tag = 0, species = -1, x[3] = {};    // species -1: of another style
  bool before(const GradedAtom &other) const;
};

class PairMTPExtrapolation : public PairMTP {
 public:
  explicit PairMTPExtrapolation(class LAMMPS *lmp);
  ~PairMTPExtrapolation() override;

  void compute(int eflag, int vflag) override;
  void finish() override;
  void *extract(const char *name, int &dim) override;
  void *extract_peratom(const char *name, int &ncol) override;
  double memory_usage() override;

  // Of the latest step on which grades were computed, -1 before
  bigint graded_step() const { return last_graded; }
  virtual const double *grades() { return gamma.data(); }    // [nmax]
  double highest_grade() const { return highest; }
  bool grades_configurations() const;

  // For fix mtp/rollback. watched: collective; whether a driver watches this style, on any rank. trusted: whether grades of this step are known and
  // none passes the watch's threshold, alike on all ranks. ask_for_grades: in the next force computation.
  // watch: as a driver does, with nothing kept. break_step: -1 if no run was ended.
  void watch(double select_above, double break_above);
  bigint break_step() const;
  bool watched() const;
  bool trusted() const;
  void ask_for_grades() { asked = true; }
  void forget_grades() { last_graded = -1; }

  // The style that runs, with or without /kk; number: among several in a hybrid, from 1; 0: the only one. Null where there is none.
  static PairMTPExtrapolation *find(class Force &force, int number);

 protected:
  struct SumOfRows {
    std::vector<double> sum;    // [n_parameters]
    bigint n_atoms = 0;
  };
  std::vector<double> gamma;    // [nmax]

  void require(const mtp::Potential &potential, const std::string &name) override;
  void use_current_model() override;
  void visit(int part, const Group &group) override;

  // Of this rank's atoms, on the step under way. The grades are in `gamma` here, for other styles elsewhere; of what is kept there, only what is
  // flagged has to come here.
  virtual void begin_grades();
  virtual SumOfRows sum_of_rows() const;      // configuration mode
  virtual double highest_of_atoms() const;    // neighbourhood mode, also below
  virtual std::vector<GradedAtom> atoms_above(double grade) const;
  virtual std::vector<GradedAtom> atoms_near(const double *centre, const Images &within) const;    // at least those with an image there

 private:
  struct Rows {
    mtp::Scratch<double> of_group;    // dV_i/dtheta
    std::vector<double> sum;          // configuration mode: of the part's atoms so far
    bigint n_atoms = 0;
  };

  int gamma_flag = 0;    // set to 1 by `fix pair` for the steps that want grades
  bool asked = false;
  bool grading = false;        // whether the step under way computes them
  bool stopped_run = false;    // by this style, which then lets later runs start
  double highest = 0;          // over all ranks
  bigint last_graded = -1;
  bool none_passes = true;    // the watch's threshold, when last graded
  std::unique_ptr<mtp::Grader> grader;
  std::vector<Rows> rows;    // [part]

  bool compute_asks() const;
  void end_grades();
  double configuration_grade();
  void report();

  GradedAtom graded_atom(int i) const;
  std::vector<GradedAtom> choose_centres(double select_above) const;
  void keep(std::int64_t room, double grade, const std::function<mtp::Flagged()> &taken);
  mtp::Flagged configuration(double grade) const;
  mtp::Flagged neighbourhood(const GradedAtom &centre, double radius) const;
  mtp::Flagged nothing_yet(double grade) const;
};

}    // namespace LAMMPS_NS

#endif
