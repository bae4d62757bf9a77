// Arguments of a kernel that lie in memory: one after the other, each in whole words of 8 bytes.
#pragma once
#include "prelude.cuh"

DEVICE u64 argument_word(const u64* word) {
#ifdef __CUDACC__
    return __ldg(word);
#else
    return *word;
#endif
}

template <class T>
struct FromWords {
    static DEVICE T get(const u64* words) {
        u64 copy[(sizeof(T) + 7) / 8];
#pragma unroll
        for (int i = 0; i < int(sizeof(copy) / 8); ++i) copy[i] = argument_word(words + i);
        T value;
        memcpy(&value, copy, sizeof(T));
        return value;
    }
};
// As of a pointer that is a parameter, the compiler is told that it points to global memory: else its loads are
// generic.
template <class T>
struct FromWords<T*> {
    static DEVICE T* get(const u64* words) {
#ifdef __CUDACC__
        return static_cast<T*>(__cvta_global_to_generic(argument_word(words)));
#else
        return reinterpret_cast<T*>(argument_word(words));
#endif
    }
};

// Initializes a variable of any type with the argument that begins at a word.
struct Argument {
    const u64* words;
    template <class T>
    DEVICE operator T() const {
        return FromWords<T>::get(words);
    }
};
