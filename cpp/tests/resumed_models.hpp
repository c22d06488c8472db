/// @file
/// The models of rows_are_resumable.cpp.
#pragma once

#include "exodus/alif.hpp"
#include "exodus/srm.hpp"

#define EXODUS_MODELS(X) X(Alif) X(Srm)
