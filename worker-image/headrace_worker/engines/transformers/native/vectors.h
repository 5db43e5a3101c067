// Vectors of sixteen numbers, and the two number formats: all arithmetic is float32; tensors are float32 or bfloat16.

#pragma once

#include <immintrin.h>

#include <cstdint>

namespace {

constexpr int LANES = 16;
using Lanes = float __attribute__((vector_size(64)));
using Bits = uint32_t __attribute__((vector_size(64)));
using Integers = int32_t __attribute__((vector_size(64)));

struct bfloat16 {
    uint16_t bits;
};

inline Lanes load(const float* from) {
    Lanes lanes;
    __builtin_memcpy(&lanes, from, sizeof lanes);
    return lanes;
}

inline Lanes load(const bfloat16* from) {
    uint16_t __attribute__((vector_size(32))) halves;
    __builtin_memcpy(&halves, from, sizeof halves);
    return (Lanes)(__builtin_convertvector(halves, Bits) << 16);
}

inline void store(float* to, Lanes lanes) { __builtin_memcpy(to, &lanes, sizeof lanes); }

inline void store(bfloat16* to, Lanes lanes) {
#ifdef __AVX512BF16__
    const __m256bh halves = _mm512_cvtneps_pbh((__m512)lanes);
    __builtin_memcpy(to, &halves, sizeof halves);
#else
    Bits bits = (Bits)lanes;
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to the nearest, ties to even
    bits = lanes == lanes ? bits : (Bits{} + 0x7fc0);   // what is not a number stays so
    auto halves = __builtin_convertvector(bits, uint16_t __attribute__((vector_size(32))));
    __builtin_memcpy(to, &halves, sizeof halves);
#endif
}

inline float read(float number) { return number; }

inline float read(bfloat16 number) {
    uint32_t bits = uint32_t(number.bits) << 16;
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

inline void write(float& to, float value) { to = value; }

inline void write(bfloat16& to, float value) {
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    to.bits = value == value ? uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16) : 0x7fc0;
}

// By halves: one after another each would wait for the one before.
inline float sum(Lanes lanes) {
#ifdef __AVX512F__
    return _mm512_reduce_add_ps((__m512)lanes);
#endif
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] += lanes[i + half];
    return lanes[0];
}

inline float greatest_of(Lanes lanes) {
#ifdef __AVX512F__
    return _mm512_reduce_max_ps((__m512)lanes);
#endif
    for (int half = LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++) lanes[i] = lanes[i] > lanes[i + half] ? lanes[i] : lanes[i + half];
    return lanes[0];
}

inline bool any(Integers lanes) {
    int32_t found = 0;
    for (int i = 0; i < LANES; i++) found |= lanes[i];
    return found != 0;
}

// e to the power of x, to a few units in the last place; 0 below -87 and never infinite.
inline Lanes exponential(Lanes x) {
    const Lanes lowest = Lanes{} - 87.0f, highest = Lanes{} + 88.0f;
    x = x < lowest ? lowest : x;
    x = x > highest ? highest : x;
    const float shift = 12582912.0f;  // 1.5 * 2^23: adding it rounds to a whole number
    const Lanes whole = (x * 1.44269504f + shift) - shift;
    const Lanes r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
    Lanes y = Lanes{} + 1.9875691500e-4f;
    y = y * r + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * r * r + r + 1.0f;
    const Integers power = (__builtin_convertvector(whole, Integers) + 127) << 23;
    return y * (Lanes)power;
}

// x / (1 + e to the power of -x); what is rounded to bfloat16 anyway needs no more than twelve right bits.
template <typename T>
inline Lanes silu(Lanes x) {
#ifdef __AVX512F__
    if constexpr (sizeof(T) == 2) {
        const __m512 power = (__m512)(x * -1.44269504f), whole = _mm512_roundscale_ps(power, 0);
        const Lanes r = (Lanes)power - (Lanes)whole;  // 2 to the power of r, of at most 1/2, by its series
        const Lanes y = ((r * 9.618129e-3f + 5.550411e-2f) * r + 2.402265e-1f) * r * r + r * 6.931472e-1f + 1.0f;
        return x * (Lanes)_mm512_rcp14_ps((__m512)((Lanes)_mm512_scalef_ps((__m512)y, whole) + 1.0f));
    }
#endif
    return x / (exponential(-x) + 1.0f);
}

}  // namespace
