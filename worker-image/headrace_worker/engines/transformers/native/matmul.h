// Matrix products of few rows with many weights. Weights are packed once, when a model is loaded (`tiled.py`): in blocks of 32 outputs, each of which
// is read from its beginning to its end, once for up to 32 rows (AMX) or 12. A row's sums do not depend on how many rows there are.

#pragma once

#include <algorithm>
#include <atomic>

#include "vectors.h"

// A linear layer. Of float32, a block is [inputs][32]; of bfloat16 it is [inputs / 32][2][16][16][2]: two tiles of 16 outputs, in each the inputs
// in pairs, as the processor multiplies them. Outputs are filled up to whole blocks with zeros.
struct Linear {
    const void *weights, *bias;
    int64_t inputs, outputs;
};

namespace {

constexpr int BLOCK = 32;
constexpr int MOST_TOGETHER = 32;  // rows

// A matrix in panels of 32 columns, each with its rows one after another: what a product reads and writes at once lies together, and rows whose
// width is a power of two do not all want the same few places of the processor's own memory.
template <typename T>
struct Panels {
    T* data;
    int64_t stride;  // from one panel to the next, in elements

    inline T* at(int64_t row, int64_t column) const { return data + column / BLOCK * stride + row * BLOCK + column % BLOCK; }
};

// What is to be read next, into the processor's own memory while it computes: a part of a block for each group of rows.
struct Upcoming {
    const char* at = nullptr;
    int64_t step = 0;  // bytes in one round

    inline void fetch(int64_t round, int lines) const {
        const char* from = at + round * step;
        for (int i = 0; i < lines; i++) __builtin_prefetch(from + i * step / lines, 0, 2);
    }
};

template <typename T>
struct Arithmetic;

#ifdef __AVX512F__
#define HAS_FLOAT32_PRODUCTS

template <>
struct Arithmetic<float> {
    static constexpr int ROWS = 12, DEPTH = 1;  // rows done together; inputs in one round
    static void begin() {}
    static void end() {}

    template <int N>
    static void multiply(const Panels<float>& rows, int64_t row, int64_t inputs, const float* block, float* out, const Upcoming& next) {
        Lanes sums[N][2] = {};
        for (int64_t k = 0; k < inputs; k++) {
            next.fetch(k, 2);
            const float* from = rows.at(row, k);
            const Lanes first = load(block + k * BLOCK), second = load(block + k * BLOCK + LANES);
            for (int r = 0; r < N; r++) {
                sums[r][0] += from[r * BLOCK] * first;
                sums[r][1] += from[r * BLOCK] * second;
            }
        }
        for (int r = 0; r < N; r++)
            for (int v = 0; v < 2; v++) store(out + r * BLOCK + v * LANES, sums[r][v]);
    }
};
#endif

#if defined(__AMX_BF16__)
#define HAS_BFLOAT16_PRODUCTS

template <>
struct Arithmetic<bfloat16> {
    static constexpr int ROWS = 32, DEPTH = 32;

    static void begin() {
        struct Tiles {
            uint8_t palette, start, reserved[14];
            uint16_t bytes[16];
            uint8_t rows[16];
        };
        alignas(64) static const Tiles tiles = {1, 0, {}, {64, 64, 64, 64, 64, 64, 64, 64}, {16, 16, 16, 16, 16, 16, 16, 16}};
        _tile_loadconfig(&tiles);
    }

    static void end() { _tile_release(); }

    // Whole tiles of rows are read; those beyond the last row are never looked at. Rows are read as what is not needed again soon: the block is, by
    // the next rows, and both do not fit into the nearest memory. For many rows that is twice as fast.
    template <int N>
    static void multiply(const Panels<bfloat16>& rows, int64_t row, int64_t inputs, const bfloat16* block, float* out, const Upcoming& next) {
        const int lines = int((next.step + 63) / 64);
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
        for (int64_t k = 0; k < inputs / DEPTH; k++) {
            _tile_loadd(4, block + k * BLOCK * DEPTH, 64);
            _tile_stream_loadd(6, rows.at(row, k * DEPTH), 64);
            next.fetch(k, lines);
            _tile_dpbf16ps(0, 6, 4);
            _tile_loadd(5, block + k * BLOCK * DEPTH + LANES * DEPTH, 64);
            _tile_dpbf16ps(1, 6, 5);
            if (N > 16) {
                _tile_stream_loadd(7, rows.at(row + 16, k * DEPTH), 64);
                _tile_dpbf16ps(2, 7, 4);
                _tile_dpbf16ps(3, 7, 5);
            }
        }
        constexpr int64_t to = BLOCK * sizeof(float);
        _tile_stored(0, out, to);
        _tile_stored(1, out + LANES, to);
        if (N > 16) {
            _tile_stored(2, out + 16 * BLOCK, to);
            _tile_stored(3, out + 16 * BLOCK + LANES, to);
        }
    }
};

#elif defined(__AVX512BF16__)
#define HAS_BFLOAT16_PRODUCTS

template <>
struct Arithmetic<bfloat16> {
    static constexpr int ROWS = 12, DEPTH = 2;
    static void begin() {}
    static void end() {}

    template <int N>
    static void multiply(const Panels<bfloat16>& rows, int64_t row, int64_t inputs, const bfloat16* block, float* out, const Upcoming& next) {
        __m512 sums[N][2] = {};
        for (int64_t k = 0; k < inputs / 2; k++) {
            next.fetch(k, 2);
            const bfloat16 *from = rows.at(row, 2 * k), *weights = block + (k / 16 * BLOCK + k % 16) * BLOCK;
            const __m512bh first = (__m512bh)_mm512_loadu_si512(weights), second = (__m512bh)_mm512_loadu_si512(weights + LANES * BLOCK);
            for (int r = 0; r < N; r++) {
                int32_t pair;
                __builtin_memcpy(&pair, from + r * BLOCK, sizeof pair);
                const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
                sums[r][0] = _mm512_dpbf16_ps(sums[r][0], both, first);
                sums[r][1] = _mm512_dpbf16_ps(sums[r][1], both, second);
            }
        }
        for (int r = 0; r < N; r++)
            for (int v = 0; v < 2; v++) store(out + r * BLOCK + v * LANES, (Lanes)sums[r][v]);
    }
};
#endif

#ifdef HAS_FLOAT32_PRODUCTS

// `count` rows of at most `N`: the code for so many rows is chosen.
template <typename T, int N>
void multiply(const Panels<T>& rows, int64_t row, int count, int64_t inputs, const T* block, float* out, const Upcoming& next) {
    if constexpr (N > 1 && Arithmetic<T>::ROWS != 32) {
        if (count < N) return multiply<T, N - 1>(rows, row, count, inputs, block, out, next);
    }
    if constexpr (N == 32) {
        if (count <= 16) return Arithmetic<T>::template multiply<16>(rows, row, inputs, block, out, next);
    }
    Arithmetic<T>::template multiply<N>(rows, row, inputs, block, out, next);
}

// `rows` times a layer, in the hands of every thread of a team: `use` is told a first row, how many, a first output, and the 32 sums of each row.
// With two PARTS each block goes together with the block as far into the second half of the outputs. Blocks are claimed, for a thread may be kept
// from its work, and one ahead, so that what comes next is known. All is done when all threads have come back: a barrier must follow.
template <int PARTS, typename T, typename Use>
void product(const Panels<T>& rows, int64_t count, const Linear& layer, std::atomic<int64_t>& claimed, int threads, const Use& use) {
    using Mine = Arithmetic<T>;
    alignas(64) float sums[PARTS][MOST_TOGETHER * BLOCK];
    const int64_t blocks = (layer.outputs + BLOCK - 1) / BLOCK / PARTS, bytes = layer.inputs * BLOCK * int64_t(sizeof(T));
    const int64_t groups = (count + Mine::ROWS - 1) / Mine::ROWS;
    const int64_t wanted = std::min(groups, (4 * threads + blocks - 1) / blocks);  // cuts of the rows, where blocks alone are too few
    const int64_t cuts = blocks < 4 * threads ? wanted : 1;
    const auto at = [&](int64_t block, int part) { return (const T*)layer.weights + (block + part * blocks) * BLOCK * layer.inputs; };
    for (int64_t item = claimed++; item < blocks * cuts;) {
        const int64_t following = claimed++, block = item / cuts, cut = item % cuts;
        const int64_t low = groups * cut / cuts, high = groups * (cut + 1) / cuts;
        const bool fetches = following < blocks * cuts && following / cuts != block;
        for (int64_t group = low; group < high; group++) {
            const int64_t first = count * group / groups, end = count * (group + 1) / groups;
            const int64_t begin = Mine::ROWS == 32 ? group * 32 : first;  // tiles are whole
            const int size = int((Mine::ROWS == 32 ? std::min(count, begin + 32) : end) - begin);
            for (int part = 0; part < PARTS; part++) {
                Upcoming next;
                const int64_t share = bytes / (high - low);
                if (fetches) next = {(const char*)at(following / cuts, part) + share * (group - low), share / (layer.inputs / Mine::DEPTH)};
                multiply<T, Mine::ROWS>(rows, begin, size, layer.inputs, at(block, part), sums[part], next);
            }
            use(begin, size, block * BLOCK, sums);
        }
        item = following;
    }
}

#endif

}  // namespace
