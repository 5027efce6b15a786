// SPDX-License-Identifier: BSD-3-Clause
#include "directional_gradient.hpp"

#include "contraction.hpp"
#include "moments.hpp"
#include "radial.hpp"

#include <algorithm>

namespace mtp {
namespace {

// Along du: the change of the monomials that monomials() makes.
template <class T> MTP_FUNCTION void monomial_tangents(const PlanView &plan, const T (*u)[3], const T (*du)[3], const T *mono, T *dmono)
{
  for (int n = 0; n < block; n++) dmono[n] = T{};
  const T *below = mono;
  T *dbelow = dmono, *without_z = dmono + block;
  for (int nu = 1; nu <= plan.highest_degree; nu++) {
    T *const with_z = without_z + (nu + 1) * block;
    for (int n = 0; n < block; n++) without_z[n] = dbelow[n] * u[n][0] + below[n] * du[n][0];
    for (int k = 0; k < nu; k++)
      for (int n = 0; n < block; n++) {
        const T lower = below[k * block + n], dlower = dbelow[k * block + n];
        without_z[(k + 1) * block + n] = dlower * u[n][1] + lower * du[n][1];
        with_z[k * block + n] = dlower * u[n][2] + lower * du[n][2];
      }
    below = mono + (without_z - dmono);
    dbelow = without_z;
    without_z = with_z + nu * block;
  }
}

struct AddDegreeAndTangents {
  template <int n_mu, class T>
  static MTP_FUNCTION void run(int n_monomials, int stride, const T *f, const T *df, const T *mono, const T *dmono, T *m, T *dm)
  {
    T radial[block][n_mu], dradial[block][n_mu];
    for (int n = 0; n < block; n++)
      for (int mu = 0; mu < n_mu; mu++) {
        radial[n][mu] = f[n * stride + mu];
        dradial[n][mu] = df[n * stride + mu];
      }
    for (int k = 0; k < n_monomials; k++, mono += block, dmono += block, m += n_mu, dm += n_mu)
      for (int mu = 0; mu < n_mu; mu++) {
        T sum = m[mu], dsum = dm[mu];
        for (int n = 0; n < block; n++) {
          sum += radial[n][mu] * mono[n];
          dsum += dradial[n][mu] * mono[n] + radial[n][mu] * dmono[n];
        }
        m[mu] = sum;
        dm[mu] = dsum;
      }
  }
};

// Adds to by_phi[block][stride] and by_slope[block][stride] what the monomials of a degree say of the radial functions: sum_k A_k u^k + D_k d(u^k)
// and sum_k D_k u^k, for the summed moments' D and A = a D + dD.
struct CollectDegree {
  template <int n_mu, class T>
  static MTP_FUNCTION void run(int n_monomials, int stride, const T *D, const T *A, const T *mono, const T *dmono, T *by_phi, T *by_slope)
  {
    T phi[block][n_mu], slope[block][n_mu];
    for (int n = 0; n < block; n++)
      for (int mu = 0; mu < n_mu; mu++) {
        phi[n][mu] = by_phi[n * stride + mu];
        slope[n][mu] = by_slope[n * stride + mu];
      }
    for (int k = 0; k < n_monomials; k++, mono += block, dmono += block, D += n_mu, A += n_mu)
      for (int mu = 0; mu < n_mu; mu++)
        for (int n = 0; n < block; n++) {
          phi[n][mu] += A[mu] * mono[n] + D[mu] * dmono[n];
          slope[n][mu] += D[mu] * mono[n];
        }
    for (int n = 0; n < block; n++)
      for (int mu = 0; mu < n_mu; mu++) {
        by_phi[n * stride + mu] = phi[n][mu];
        by_slope[n * stride + mu] = slope[n][mu];
      }
  }
};

// Calls Kernel::run with a number of radial functions that the compiler knows; false where it is none of the usual ones.
template <class Kernel, class... Arguments> MTP_FUNCTION bool with_constant(int n_mu, Arguments... arguments)
{
  switch (n_mu) {
  case 1: Kernel::template run<1>(arguments...); return true;
  case 2: Kernel::template run<2>(arguments...); return true;
  case 3: Kernel::template run<3>(arguments...); return true;
  case 4: Kernel::template run<4>(arguments...); return true;
  default: return false;
  }
}

}    // namespace

struct ForwardOverReverse {
  template <class T> static MTP_FUNCTION void run(DirectionalGradient *group, const double *energy_weights, double *sums)
  {
    DirectionalGradient &s = *group;
    const PlanView &plan = s.plan;
    const int n_radial = plan.n_radial, n_chebyshev = plan.n_chebyshev;
    const T *const xs = reinterpret_cast<const T *>(s.xs), *const ys = reinterpret_cast<const T *>(s.ys),
                   *const zs = reinterpret_cast<const T *>(s.zs), *const directions = reinterpret_cast<const T *>(s.gradients);
    T *const m = reinterpret_cast<T *>(s.moments), *const D = reinterpret_cast<T *>(s.adjoint), *const dm = reinterpret_cast<T *>(s.tangents.get()),
             *const dD = dm + plan.n_moments, *const dmono = dD + plan.n_moments;
    T *const mono = reinterpret_cast<T *>(s.mono), *const t = reinterpret_cast<T *>(s.polynomials);
    T *const f = reinterpret_cast<T *>(s.f), *const df = reinterpret_cast<T *>(s.df);
    T *const unit = reinterpret_cast<T *>(s.unit), *const rate = reinterpret_cast<T *>(s.angular),
             *const distance = reinterpret_cast<T *>(s.distance);
    T *const out = reinterpret_cast<T *>(sums);

    for (int k = 0; k < plan.n_summed; k++) m[k] = dm[k] = T{};
    for (int z = 0; z < plan.n_species; z++)
      for (int n = 0; n < s.n_slots[z]; n += block) {
        const std::size_t slot = static_cast<std::size_t>(z) * s.capacity + n;
        T u[block][3], du[block][3];
        for (int b = 0; b < block; b++) {
          const T x[3] = {xs[slot + b], ys[slot + b], zs[slot + b]};
          const T *const v = directions + 3 * (slot + b);
          const T r = square_root(x[0] * x[0] + x[1] * x[1] + x[2] * x[2]);
          const T over_r = 1.0 / r;
          for (int i = 0; i < 3; i++) unit[3 * (slot + b) + i] = u[b][i] = x[i] * over_r;
          const T dr = u[b][0] * v[0] + u[b][1] * v[1] + u[b][2] * v[2];
          for (int i = 0; i < 3; i++) du[b][i] = (v[i] - u[b][i] * dr) * over_r;
          distance[slot + b] = r;
          rate[slot + b] = dr;
          T *const slopes = df + (slot + b) * n_radial;
          radial_functions(plan, s.species, z, r, f + (slot + b) * n_radial, slopes);
          for (int mu = 0; mu < n_radial; mu++) slopes[mu] *= dr;
        }
        monomials(plan, u, mono);
        monomial_tangents(plan, u, du, mono, dmono);
        const T *of_k = mono, *dof_k = dmono, *const f_n = f + slot * n_radial, *const df_n = df + slot * n_radial;
        T *m_k = m, *dm_k = dm;
        for (int nu = 0; nu <= plan.highest_degree; nu++) {
          const int size = monomials_of_degree(nu), n_mu = plan.n_mu[nu];
          if (!with_constant<AddDegreeAndTangents>(n_mu, size, n_radial, f_n, df_n, of_k, dof_k, m_k, dm_k))
            for (int k = 0; k < size; k++)
              for (int mu = 0; mu < n_mu; mu++)
                for (int b = 0; b < block; b++) {
                  m_k[k * n_mu + mu] += f_n[b * n_radial + mu] * of_k[k * block + b];
                  dm_k[k * n_mu + mu] += df_n[b * n_radial + mu] * of_k[k * block + b] + f_n[b * n_radial + mu] * dof_k[k * block + b];
                }
          of_k += size * block, dof_k += size * block, m_k += size * n_mu, dm_k += size * n_mu;
        }
      }

    energy_and_adjoint(plan, m, D);
    contract(plan, plan.targets, plan.n_targets, m);
    expand(plan, dm);
    contract_tangents<T, T>(plan, plan.targets, plan.n_targets, m, dm);
    adjoint_tangents<T, T>(plan, m, D, dm, dD);
    const T weight = *reinterpret_cast<const T *>(energy_weights);
    for (int k = 0; k < plan.n_summed; k++) dD[k] += D[k] * weight;

    const double slope = 2 / (plan.cutoff - plan.min_distance);
    T *const by_phi = f, *const by_slope = df;    // in place of the radial functions
    T *sum = out;
    for (int z = 0; z < plan.n_species; z++, sum += n_radial * n_chebyshev) {
      for (int k = 0; k < n_radial * n_chebyshev; k++) sum[k] = T{};
      for (int n = 0; n < s.n_slots[z]; n += block) {
        const std::size_t slot = static_cast<std::size_t>(z) * s.capacity + n;
        const T(*u)[3] = reinterpret_cast<const T(*)[3]>(unit + 3 * slot);
        T du[block][3];
        for (int b = 0; b < block; b++) {
          const T over_r = 1.0 / distance[slot + b];
          for (int i = 0; i < 3; i++) du[b][i] = (directions[3 * (slot + b) + i] - u[b][i] * rate[slot + b]) * over_r;
        }
        monomials(plan, u, mono);
        monomial_tangents(plan, u, du, mono, dmono);
        T *const phi_n = by_phi + slot * n_radial, *const slope_n = by_slope + slot * n_radial;
        for (int k = 0; k < block * n_radial; k++) phi_n[k] = slope_n[k] = T{};
        const T *of_k = mono, *dof_k = dmono, *D_k = D, *A_k = dD;
        for (int nu = 0; nu <= plan.highest_degree; nu++) {
          const int size = monomials_of_degree(nu), n_mu = plan.n_mu[nu];
          if (!with_constant<CollectDegree>(n_mu, size, n_radial, D_k, A_k, of_k, dof_k, phi_n, slope_n))
            for (int k = 0; k < size; k++)
              for (int mu = 0; mu < n_mu; mu++)
                for (int b = 0; b < block; b++) {
                  const T D_mu = D_k[k * n_mu + mu], monomial = of_k[k * block + b];
                  phi_n[b * n_radial + mu] += A_k[k * n_mu + mu] * monomial + D_mu * dof_k[k * block + b];
                  slope_n[b * n_radial + mu] += D_mu * monomial;
                }
          of_k += size * block, dof_k += size * block, D_k += size * n_mu, A_k += size * n_mu;
        }
        for (int b = 0; b < block; b++) {
          T smooth, dsmooth;
          cutoff_function(plan, s.species, z, distance[slot + b], &smooth, &dsmooth);
          const T held = chebyshev(plan, s.species, z, distance[slot + b], t);
          const T dr = rate[slot + b], dxi = smooth * held * dr * slope, dsmooth_dr = dsmooth * dr;
          T before = T{}, derivative = T{};    // T'_(beta - 1), T'_beta
          for (int beta = 0; beta < n_chebyshev; beta++) {
            if (beta > 0) {
              const T next = beta == 1 ? T{} + 1.0 : t[beta - 1] * 2.0 + t[1] * 2.0 * derivative - before;
              before = derivative;
              derivative = next;
            }
            const T phi = t[beta] * smooth, dphi = derivative * dxi + t[beta] * dsmooth_dr;
            for (int mu = 0; mu < n_radial; mu++) sum[mu * n_chebyshev + beta] += phi * phi_n[b * n_radial + mu] + dphi * slope_n[b * n_radial + mu];
          }
        }
      }
    }
    *sum++ = weight;
    for (int alpha = 0; alpha < plan.n_scalar; alpha++) *sum++ = m[plan.scalars[alpha]] * weight + dm[plan.scalars[alpha]];
  }
};

DirectionalGradient::DirectionalGradient(const PlanView &view) : Sites<Lane8>(view)
{
  tangents.require((2 * static_cast<std::size_t>(plan.n_moments) + block * static_cast<std::size_t>(plan.n_monomials)) * width);
  sums.require(static_cast<std::size_t>(n_active()) * width);
}

// Neighbours that pad a lane have no weight, but what is left in memory may be no number.
void DirectionalGradient::pad_directions()
{
  for (int z = 0; z < plan.n_species; z++)
    for (int lane = 0; lane < width; lane++)
      for (int n = count[z * width + lane]; n < n_slots[z]; n++)
        for (int i = 0; i < 3; i++) reinterpret_cast<double *>(gradients + 3 * (static_cast<std::size_t>(z) * capacity + n) + i)[lane] = 0;
}

void DirectionalGradient::add_gradient(const double *energy_weights, double *gradient)
{
  pad();
  pad_directions();
  alignas(64) double weights[width];
  std::copy(energy_weights, energy_weights + width, weights);
  on_best_vectors<ForwardOverReverse>(this, static_cast<const double *>(weights), sums.get());
  for (int k = 0; k < n_active(); k++) {
    double sum = 0;
    for (int lane = 0; lane < width; lane++) sum += sums.get()[k * width + lane];
    gradient[place_of_active(species, k)] += sum;
  }
}

}    // namespace mtp
