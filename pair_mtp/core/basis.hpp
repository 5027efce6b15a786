// SPDX-License-Identifier: BSD-3-Clause
// The basis of a moment tensor potential: which moments are summed over the neighbours and how they are multiplied into scalars.
//
// Basic moments   m_k = sum_j f_mu(r_ij) x^a y^b z^c / r^(a+b+c),   (x, y, z) = r_j - r_i
// Products        m_t += c m_p m_q, executed in order
// Scalars         B_alpha = m_(scalars[alpha])
//
// Level of a moment tensor M_(mu,nu) is 2 + 4 mu + nu; that of a product is the sum [Shapeev, Multiscale Model. Simul. 14, 1153 (2016);
// Gubaev et al., Comput. Mater. Sci. 156, 148 (2019)]. The basis of level L holds every scalar contraction of at most four moments and level <= L
// once.
#pragma once

#include <array>
#include <string>
#include <vector>

namespace mtp {

struct BasicMoment {
  int mu, a, b, c;
};

struct Product {
  int p, q, coefficient, t;
};

struct Basis {
  int n_radial = 0;     // number of radial functions: mu = 0 ... n_radial - 1
  int n_moments = 0;    // basic moments first, then what the products fill
  std::vector<BasicMoment> basic;
  std::vector<Product> products;
  std::vector<int> scalars;

  int n_basic() const { return static_cast<int>(basic.size()); }
  int n_scalar() const { return static_cast<int>(scalars.size()); }

  // Throws Error(format) where the tables contradict themselves: an index out of range, or a moment that is read before it is complete.
  void check(const std::string &where) const;
};

bool operator==(const Basis &left, const Basis &right);

// Generates the basis of a level from 2 to 40. A contraction uses indices up in pairs, so that no scalar has an odd level: an odd level gives the
// basis of the even one below.
Basis generate_basis(int level);

}    // namespace mtp
