// A kernel that runs one program over the arrays of several rows of a table, which is a parameter.
#pragma once
#include "math.cuh"

// Every word of a table is 8 bytes, whatever it holds.
template <class T>
struct alignas(8) Cell {
    T value;
};

// Columns of `Rows` cells, one after the other. Column 0 holds each row's first block, in ascending order; rows that
// are not used begin after the last block.
template <int Rows, class T, class... Rest>
struct Table {
    Cell<T> column[Rows];
    Table<Rows, Rest...> rest;
    template <int K>
    DEVICE auto get(int row) const {
        if constexpr (K == 0) {
            return column[row].value;
        } else {
            return rest.template get<K - 1>(row);
        }
    }
};
template <int Rows, class T>
struct Table<Rows, T> {
    Cell<T> column[Rows];
    template <int K>
    DEVICE auto get(int row) const {
        static_assert(K == 0);
        return column[row].value;
    }
};

DEVICE constexpr int largest_power_below(int n) {
    int power = 1;
    while (power * 2 < n) power *= 2;
    return power;
}

// The row of a block: the last one that begins at it or before it.
template <int Rows, class... Columns>
DEVICE int row_of(const Table<Rows, i64, Columns...>& table, i64 block) {
    int row = 0;
#pragma unroll
    for (int step = largest_power_below(Rows); step > 0; step /= 2) {
        if (row + step < Rows && table.template get<0>(row + step) <= block) row += step;
    }
    return row;
}
