// What lies between the matrix products of a decoder, on a CPU: normalisation with the residual, the gate of an MLP, and attention over the
// rows of the KV cache with rotary positions. Matrix products themselves are oneDNN's.
//
// Plain C++ with the vectors of GCC: compiled once for AVX2 and once for AVX-512, called through a C interface, and tested against torch.
// Threads are OpenMP's, of torch's own runtime: `build.py` says why. All arithmetic is float32; tensors are float32 or bfloat16.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

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
    Bits bits = (Bits)lanes;
    bits = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;  // to the nearest, ties to even
    bits = lanes == lanes ? bits : (Bits{} + 0x7fc0);   // what is not a number stays so
    auto halves = __builtin_convertvector(bits, uint16_t __attribute__((vector_size(32))));
    __builtin_memcpy(to, &halves, sizeof halves);
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
            store(out + row * width + i, gate / (exponential(-gate) + 1.0f) * load(ups + i));
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
        float most = best[0];
        for (int lane = 1; lane < LANES; lane++) most = std::max(most, best[lane]);
        for (; i < width; i++) most = std::max(most, read(x[i]));
        for (i = 0; i < width - 1 && read(x[i]) != most; i++) {}
        out[row] = i;
    }
}

}  // namespace

// New tokens of many sequences in one row, as `decoder.py` packs them; sequence i has row i of the cache. Keys lie there in blocks of 16
// tokens with the tokens innermost, [rows, heads, length / 16, size, 16], so that 16 scores are one vector; values lie as [rows, heads, length, size].
struct Attention {
    const void *query, *key, *value;
    int64_t query_token, query_head, key_token, key_head, value_token, value_head;  // strides, in elements
    void *out, *keys, *values;
    const float *cosines, *sines;  // [positions, size / 2], or null where queries and keys are as they should be
    const int32_t *starts, *lengths;  // first new token of each sequence and the end of the last; tokens including the new ones
    int32_t sequences, heads, key_heads, size, length, window;  // window 0: none
    float scaling;
};

namespace {

constexpr int LARGEST = 512;    // numbers in a head
constexpr int MOST_ROWS = 4;    // queries that are done together: each key and value is read once for all of them
constexpr int MOST_BLOCKS = 4;  // blocks of keys, and vectors of a value, that are done together
constexpr int PROMPT_QUERIES = 16;

struct Item {
    int sequence, key_head, first, count;  // queries of one sequence, counted from its first new token
};

// What will be read next. The cache is larger than the processor's, and its own foresight ends with each page of memory.
struct Ahead {
    const char *at = nullptr, *end = nullptr;

    template <typename T>
    void aim(const T* from, int64_t count) {
        at = (const char*)from;
        end = (const char*)(from + count);
    }

    // As many bytes as one round of a kernel reads of its own.
    template <typename T>
    void step() {
        if (at >= end) return;
        for (size_t i = 0; i < sizeof(T); i++) __builtin_prefetch(at + i * 64);
        at += sizeof(T) * 64;
    }
};

template <typename T>
void rotate(const T* from, float* to, const Attention& it, int64_t position) {
    const int half = it.size / 2;
    if (it.cosines == nullptr) {
        for (int i = 0; i < it.size; i++) to[i] = read(from[i]);
        return;
    }
    const float *cosine = it.cosines + position * half, *sine = it.sines + position * half;
    for (int i = 0; i < half; i++) {
        const float a = read(from[i]), b = read(from[i + half]);
        to[i] = a * cosine[i] - b * sine[i];
        to[i + half] = b * cosine[i] + a * sine[i];
    }
}

template <typename T>
void keep(const Attention& it, int sequence, int head, int64_t token, int64_t position) {
    float rotated[LARGEST];
    rotate((const T*)it.key + token * it.key_token + head * it.key_head, rotated, it, position);
    const int64_t row = int64_t(sequence) * it.key_heads + head;
    T* key = (T*)it.keys + (row * it.length + position / LANES * LANES) * it.size + position % LANES;
    for (int i = 0; i < it.size; i++) write(key[i * LANES], rotated[i]);
    const T* value = (const T*)it.value + token * it.value_token + head * it.value_head;
    std::copy(value, value + it.size, (T*)it.values + (row * it.length + position) * it.size);
}

template <int ROWS, int BLOCKS, typename T>
void score_blocks(const float* query, const T* keys, int size, float* scores, int64_t stride, Ahead& ahead) {
    Lanes sums[ROWS][BLOCKS] = {};
    for (int i = 0; i < size; i++) {
        ahead.step<T>();
        Lanes key[BLOCKS];
        for (int b = 0; b < BLOCKS; b++) key[b] = load(keys + (int64_t(b) * size + i) * LANES);
        for (int r = 0; r < ROWS; r++)
            for (int b = 0; b < BLOCKS; b++) sums[r][b] += query[r * size + i] * key[b];
    }
    for (int r = 0; r < ROWS; r++)
        for (int b = 0; b < BLOCKS; b++) store(scores + r * stride + b * LANES, sums[r][b]);
}

template <int ROWS, typename T>
void score(const float* query, const T* keys, int size, int blocks, float* scores, int64_t stride, Ahead& ahead) {
    for (; blocks >= MOST_BLOCKS; blocks -= MOST_BLOCKS) {
        score_blocks<ROWS, MOST_BLOCKS>(query, keys, size, scores, stride, ahead);
        keys += int64_t(MOST_BLOCKS) * LANES * size;
        scores += MOST_BLOCKS * LANES;
    }
    if (blocks == 3) score_blocks<ROWS, 3>(query, keys, size, scores, stride, ahead);
    if (blocks == 2) score_blocks<ROWS, 2>(query, keys, size, scores, stride, ahead);
    if (blocks == 1) score_blocks<ROWS, 1>(query, keys, size, scores, stride, ahead);
}

template <int ROWS, int VECTORS, typename T>
void weigh_part(const float* weights, int64_t stride, const T* values, int size, int tokens, T* const* out, const float* scales, Ahead& ahead) {
    Lanes sums[ROWS][VECTORS] = {};
    for (int t = 0; t < tokens; t++) {
        ahead.step<T>();
        Lanes value[VECTORS];
        for (int v = 0; v < VECTORS; v++) value[v] = load(values + int64_t(t) * size + v * LANES);
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < VECTORS; v++) sums[r][v] += weights[r * stride + t] * value[v];
    }
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < VECTORS; v++) store(out[r] + v * LANES, sums[r][v] * scales[r]);
}

template <int ROWS, typename T>
void weigh(const float* weights, int64_t stride, const T* values, int size, int tokens, T* const* out, const float* scales, Ahead& ahead) {
    T* to[ROWS];
    for (int part = 0; part < size; part += MOST_BLOCKS * LANES) {
        for (int r = 0; r < ROWS; r++) to[r] = out[r] + part;
        switch (std::min(MOST_BLOCKS, (size - part) / LANES)) {
            case 4: weigh_part<ROWS, 4>(weights, stride, values + part, size, tokens, to, scales, ahead); break;
            case 3: weigh_part<ROWS, 3>(weights, stride, values + part, size, tokens, to, scales, ahead); break;
            case 2: weigh_part<ROWS, 2>(weights, stride, values + part, size, tokens, to, scales, ahead); break;
            default: weigh_part<ROWS, 1>(weights, stride, values + part, size, tokens, to, scales, ahead);
        }
    }
}

// Softmax of scores[from..to) without the division: says by what to multiply. Zeros in the rest of the `count` places.
float soften(float* scores, int from, int to, int count) {
    const float nothing = -std::numeric_limits<float>::infinity();
    std::fill(scores, scores + from, nothing);
    std::fill(scores + to, scores + count, nothing);
    Lanes greatest = Lanes{} + nothing;
    for (int i = 0; i < count; i += LANES) {
        const Lanes lanes = load(scores + i);
        greatest = lanes > greatest ? lanes : greatest;
    }
    float most = nothing;
    for (int i = 0; i < LANES; i++) most = std::max(most, greatest[i]);
    for (int i = 0; i < count; i += LANES) store(scores + i, exponential(load(scores + i) - most));
    std::fill(scores, scores + from, 0.0f);
    std::fill(scores + to, scores + count, 0.0f);
    Lanes total{};
    for (int i = 0; i < count; i += LANES) total += load(scores + i);
    return 1.0f / sum(total);
}

// The columns of the cache that a query at a place of its sequence looks at: from the first to the one after the last.
inline int first_column(const Attention& it, int last) { return it.window > 0 ? std::max(0, last - it.window) : 0; }

inline int cached(const Attention& it, int sequence) {
    return it.lengths[sequence] - (it.starts[sequence + 1] - it.starts[sequence]);
}

// Where the keys, or the values, of an item begin that it looks at, and how many numbers they are.
template <typename T>
void aim(Ahead& ahead, const Attention& it, const Item& item, const void* cache) {
    const int place = cached(it, item.sequence) + item.first;
    const int low = first_column(it, place + 1) / LANES * LANES, high = place + item.count;
    const int64_t row = int64_t(item.sequence) * it.key_heads + item.key_head;
    ahead.aim((const T*)cache + (row * it.length + low) * it.size, int64_t(high - low) * it.size);
}

// ROWS query heads, of one token or of neighbours, that look at the same keys.
template <int ROWS, typename T>
void attend_rows(const Attention& it, const Item& item, int first, const Item* next, std::vector<float>& scratch) {
    const int group = it.heads / it.key_heads, before = cached(it, item.sequence);
    alignas(64) float query[ROWS * LARGEST];
    T* out[ROWS];
    int from[ROWS], to[ROWS];
    Ahead ahead;
    if (first == 0) aim<T>(ahead, it, item, it.values);
    for (int r = 0; r < ROWS; r++) {
        const int token = item.first + (first + r) / group, head = item.key_head * group + (first + r) % group;
        const int64_t packed = it.starts[item.sequence] + token;
        rotate((const T*)it.query + packed * it.query_token + head * it.query_head, query + r * it.size, it, before + token);
        for (int i = 0; i < it.size; i++) query[r * it.size + i] *= it.scaling;
        out[r] = (T*)it.out + (packed * it.heads + head) * it.size;
        to[r] = before + token + 1;
        from[r] = first_column(it, to[r]);
    }
    const int low = from[0] / LANES * LANES, high = (to[ROWS - 1] + LANES - 1) / LANES * LANES, count = high - low;
    if (scratch.size() < size_t(ROWS) * count) scratch.resize(size_t(ROWS) * count);
    const int64_t begin = ((int64_t(item.sequence) * it.key_heads + item.key_head) * it.length + low) * it.size;
    score<ROWS>(query, (const T*)it.keys + begin, it.size, count / LANES, scratch.data(), count, ahead);
    float scales[ROWS];
    for (int r = 0; r < ROWS; r++) scales[r] = soften(scratch.data() + int64_t(r) * count, from[r] - low, to[r] - low, count);
    if (next != nullptr) aim<T>(ahead, it, *next, it.keys);
    weigh<ROWS>(scratch.data(), count, (const T*)it.values + begin, it.size, to[ROWS - 1] - low, out, scales, ahead);
}

template <typename T>
void attend(const Attention& it, const Item& item, const Item* next, std::vector<float>& scratch) {
    const int rows = item.count * (it.heads / it.key_heads), whole = rows / MOST_ROWS * MOST_ROWS;
    for (int first = 0; first < whole; first += MOST_ROWS)
        attend_rows<MOST_ROWS, T>(it, item, first, first + MOST_ROWS == rows ? next : nullptr, scratch);
    if (rows - whole == 3) attend_rows<3, T>(it, item, whole, next, scratch);
    if (rows - whole == 2) attend_rows<2, T>(it, item, whole, next, scratch);
    if (rows - whole == 1) attend_rows<1, T>(it, item, whole, next, scratch);
}

template <typename T>
void keep_item(const Attention& it, const Item& item) {
    const int begin = it.starts[item.sequence], before = cached(it, item.sequence);
    for (int t = item.first; t < item.first + item.count; t++)
        keep<T>(it, item.sequence, item.key_head, begin + t, before + t);
}

template <typename T>
void attention(const Attention& it) {
    std::vector<Item> parts, wholes;  // of long prompts, whose keys are all kept before any query looks; and of others, each on its own
    for (int s = 0; s < it.sequences; s++) {
        const int count = it.starts[s + 1] - it.starts[s];
        for (int first = 0; first < count; first += PROMPT_QUERIES)
            for (int head = 0; head < it.key_heads; head++)
                (count > PROMPT_QUERIES ? parts : wholes).push_back({s, head, first, std::min(PROMPT_QUERIES, count - first)});
    }
    const int64_t some = int64_t(parts.size()), all = int64_t(wholes.size());
#pragma omp parallel
    {
        std::vector<float> scratch;
#pragma omp for schedule(static)
        for (int64_t i = 0; i < some; i++) keep_item<T>(it, parts[i]);
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t i = 0; i < some; i++) attend<T>(it, parts[i], nullptr, scratch);
#pragma omp for schedule(guided, 1)
        for (int64_t i = 0; i < all; i++) {
            keep_item<T>(it, wholes[i]);
            attend<T>(it, wholes[i], i + 1 < all ? &wholes[i + 1] : nullptr, scratch);
        }
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
