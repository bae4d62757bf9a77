// What row programs need beside reductions.
#pragma once
#include "reduce.cuh"

// An element, or zero bytes where there is none.
template <class T>
DEVICE T load_if(bool exists, const T* p) {
    return exists ? *p : T{};
}
