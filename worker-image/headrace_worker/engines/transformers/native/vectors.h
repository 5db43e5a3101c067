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

inline float sum(Lanes lanes) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += lanes[i];
    return total;
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

}  // namespace
