// SPDX-License-Identifier: BSD-3-Clause
// The one place where exceptions become status codes.
#pragma once

#include "mtp.h"

#include "../core/error.hpp"

#include <exception>
#include <new>
#include <string>

namespace mtp {

std::string &last_error();    // of the calling thread

inline mtp_status failed(mtp_status status, const char *message) noexcept
{
  try {
    last_error() = message;
  } catch (...) {
  }
  return status;
}

template <class Action> mtp_status guarded(const Action &action) noexcept
{
  try {
    return action();
  } catch (const Error &error) {
    switch (error.kind) {
    case Error::Kind::format: return failed(MTP_ERROR_FORMAT, error.what());
    case Error::Kind::file: return failed(MTP_ERROR_FILE, error.what());
    case Error::Kind::argument: return failed(MTP_ERROR_ARGUMENT, error.what());
    case Error::Kind::incompatible: return failed(MTP_ERROR_INCOMPATIBLE, error.what());
    case Error::Kind::numerical: return failed(MTP_ERROR_NUMERICAL, error.what());
    }
    return failed(MTP_ERROR_INTERNAL, error.what());
  } catch (const std::bad_alloc &) {
    return failed(MTP_ERROR_INTERNAL, "out of memory");
  } catch (const std::exception &error) {
    return failed(MTP_ERROR_INTERNAL, error.what());
  } catch (...) {
    return failed(MTP_ERROR_INTERNAL, "unknown error");
  }
}

}    // namespace mtp
