// What lies between the matrix products of a decoder, on a CPU, and whole forward passes where this kind of CPU has products of our own.
//
// Plain C++ with the vectors of GCC: compiled once for each kind of CPU that `build.py` names, called through a C interface, and tested against
// torch. Threads are OpenMP's, of torch's own runtime: `build.py` says why.

#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>

#include "attention.h"
#include "forward.h"
#include "vectors.h"

namespace {

// residual += delta; out = residual / root mean square * weight
template <typename T>
void add_rms_norm(T* residual, const T* delta, const T* weight, T* out, int64_t rows, int64_t width, float epsilon) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        T* x = residual + row * width;
        Lanes squares{};
        for (int64_t i = 0; i < width; i += LANES) {
            if (delta != nullptr) store(x + i, load(x + i) + load(delta + row * width + i));
            const Lanes lanes = load(x + i);
            squares += lanes * lanes;
        }
        const float scale = 1.0f / std::sqrt(sum(squares) / float(width) + epsilon);
        for (int64_t i = 0; i < width; i += LANES) store(out + row * width + i, load(x + i) * scale * load(weight + i));
    }
}

// [rows, 2 * width], gates first, to silu(gate) * up
template <typename T>
void silu_multiply(const T* both, T* out, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const T *gates = both + row * 2 * width, *ups = gates + width;
        for (int64_t i = 0; i < width; i += LANES) {
            const Lanes gate = load(gates + i);
            store(out + row * width + i, silu<T>(gate) * load(ups + i));
        }
    }
}

// The first place of the greatest number of each row.
template <typename T>
void greatest(const T* numbers, int64_t* out, int64_t rows, int64_t width) {
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row++) {
        const T* x = numbers + row * width;
        Lanes best = Lanes{} - std::numeric_limits<float>::infinity();
        int64_t i = 0;
        for (; i + LANES <= width; i += LANES) {
            const Lanes lanes = load(x + i);
            best = lanes > best ? lanes : best;
        }
        float most = greatest_of(best);
        for (; i < width; i++) most = std::max(most, read(x[i]));
        for (i = 0; i < width - 1 && read(x[i]) != most; i++) {}
        out[row] = i;
    }
}

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT void attention_float32(const Attention* it) { attention<float>(*it); }
EXPORT void attention_bfloat16(const Attention* it) { attention<bfloat16>(*it); }

EXPORT void add_rms_norm_float32(float* residual, const float* delta, const float* weight, float* out, int64_t rows, int64_t width, float epsilon) {
    add_rms_norm(residual, delta, weight, out, rows, width, epsilon);
}
EXPORT void add_rms_norm_bfloat16(bfloat16* residual, const bfloat16* delta, const bfloat16* weight, bfloat16* out, int64_t rows, int64_t width, float epsilon) {
    add_rms_norm(residual, delta, weight, out, rows, width, epsilon);
}
EXPORT void silu_multiply_float32(const float* both, float* out, int64_t rows, int64_t width) { silu_multiply(both, out, rows, width); }
EXPORT void silu_multiply_bfloat16(const bfloat16* both, bfloat16* out, int64_t rows, int64_t width) { silu_multiply(both, out, rows, width); }
EXPORT void greatest_float32(const float* numbers, int64_t* out, int64_t rows, int64_t width) { greatest(numbers, out, rows, width); }
EXPORT void greatest_bfloat16(const bfloat16* numbers, int64_t* out, int64_t rows, int64_t width) { greatest(numbers, out, rows, width); }

#ifdef HAS_FLOAT32_PRODUCTS
EXPORT void forward_float32(const Pass* it) { Run<float>(*it).go(); }
EXPORT void linear_float32(float* rows, float* out, int64_t room, int64_t count, const Linear* layer) {
    linear<float>({rows, (room + 1) * BLOCK}, {out, (room + 1) * BLOCK}, count, *layer);
}
#endif
#ifdef HAS_BFLOAT16_PRODUCTS
EXPORT void forward_bfloat16(const Pass* it) { Run<bfloat16>(*it).go(); }
EXPORT void linear_bfloat16(bfloat16* rows, bfloat16* out, int64_t room, int64_t count, const Linear* layer) {
    linear<bfloat16>({rows, (room + 1) * BLOCK}, {out, (room + 1) * BLOCK}, count, *layer);
}
#endif

// Whether this process may run what was compiled here, as far as the processor's flags do not say: AMX is granted for the asking.
EXPORT int allowed() {
#ifdef __AMX_BF16__
    constexpr int ASK = 0x1023, TILES = 18;
    return syscall(SYS_arch_prctl, ASK, TILES) == 0;
#else
    return 1;
#endif
}
