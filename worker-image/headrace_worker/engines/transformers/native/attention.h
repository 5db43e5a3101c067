// Attention over the rows of the KV cache, with rotary positions.

#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "vectors.h"

// New tokens of many sequences in one row, as `decoder.py` packs them; sequence i has row i of the cache. Keys lie there in blocks of 16
// tokens with the tokens innermost, [rows, heads, length / 16, size, 16], so that 16 scores are one vector; values lie as [rows, heads, length, size].
struct Attention {
    const void *query, *key, *value;
    int64_t query_token, query_head, key_token, key_head, value_token, value_head;  // strides, in elements
    int64_t out_token, out_panel;  // from one token to the next, and between panels of 32 columns: 0 where there are none
    void *out, *keys, *values;
    const float *cosines, *sines;  // [positions, size / 2], or null where queries and keys are as they should be
    const int32_t *starts, *lengths;  // first new token of each sequence and the end of the last; tokens including the new ones
    int32_t sequences, heads, key_heads, size, length, window;  // window 0: none
    float scaling;
};

namespace {

constexpr int PANEL = 32;
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

// Where what a query has found goes.
template <typename T>
struct Place {
    T* row;
    int64_t column, panel;  // panel 0: the row lies in one piece

    inline T* at(int64_t i) const {
        const int64_t to = column + i;
        return panel == 0 ? row + to : row + to / PANEL * panel + to % PANEL;
    }
};

template <int ROWS, int VECTORS, typename T>
void weigh_part(const float* weights, int64_t stride, const T* values, int part, int size, int tokens, const Place<T>* out, const float* scales, Ahead& ahead) {
    Lanes sums[ROWS][VECTORS] = {};
    for (int t = 0; t < tokens; t++) {
        ahead.step<T>();
        Lanes value[VECTORS];
        for (int v = 0; v < VECTORS; v++) value[v] = load(values + int64_t(t) * size + part + v * LANES);
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < VECTORS; v++) sums[r][v] += weights[r * stride + t] * value[v];
    }
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < VECTORS; v++) store(out[r].at(part + v * LANES), sums[r][v] * scales[r]);
}

template <int ROWS, typename T>
void weigh(const float* weights, int64_t stride, const T* values, int size, int tokens, const Place<T>* out, const float* scales, Ahead& ahead) {
    for (int part = 0; part < size; part += MOST_BLOCKS * LANES) {
        switch (std::min(MOST_BLOCKS, (size - part) / LANES)) {
            case 4: weigh_part<ROWS, 4>(weights, stride, values, part, size, tokens, out, scales, ahead); break;
            case 3: weigh_part<ROWS, 3>(weights, stride, values, part, size, tokens, out, scales, ahead); break;
            case 2: weigh_part<ROWS, 2>(weights, stride, values, part, size, tokens, out, scales, ahead); break;
            default: weigh_part<ROWS, 1>(weights, stride, values, part, size, tokens, out, scales, ahead);
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
    const float most = greatest_of(greatest);
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
    Place<T> out[ROWS];
    int from[ROWS], to[ROWS];
    Ahead ahead;
    if (first == 0) aim<T>(ahead, it, item, it.values);
    for (int r = 0; r < ROWS; r++) {
        const int token = item.first + (first + r) / group, head = item.key_head * group + (first + r) % group;
        const int64_t packed = it.starts[item.sequence] + token;
        rotate((const T*)it.query + packed * it.query_token + head * it.query_head, query + r * it.size, it, before + token);
        for (int i = 0; i < it.size; i++) query[r * it.size + i] *= it.scaling;
        out[r] = {(T*)it.out + packed * it.out_token, int64_t(head) * it.size, it.out_panel};
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

// The work of one call, cut so that it can be shared out among threads.
struct Items {
    std::vector<Item> parts, wholes;  // of long prompts, whose keys are all kept before any query looks; and of others, each on its own

    explicit Items(const Attention& it) {
        for (int s = 0; s < it.sequences; s++) {
            const int count = it.starts[s + 1] - it.starts[s];
            for (int first = 0; first < count; first += PROMPT_QUERIES)
                for (int head = 0; head < it.key_heads; head++)
                    (count > PROMPT_QUERIES ? parts : wholes).push_back({s, head, first, std::min(PROMPT_QUERIES, count - first)});
        }
    }
};

// Called by every thread of a team; all of it is done when it returns.
template <typename T>
void attention_in_team(const Attention& it, const Items& items, std::vector<float>& scratch) {
    const int64_t some = int64_t(items.parts.size()), all = int64_t(items.wholes.size());
    if (some > 0) {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < some; i++) keep_item<T>(it, items.parts[i]);
#pragma omp for schedule(dynamic, 1) nowait
        for (int64_t i = 0; i < some; i++) attend<T>(it, items.parts[i], nullptr, scratch);
    }
#pragma omp for schedule(guided, 1)
    for (int64_t i = 0; i < all; i++) {
        keep_item<T>(it, items.wholes[i]);
        attend<T>(it, items.wholes[i], i + 1 < all ? &items.wholes[i + 1] : nullptr, scratch);
    }
}

template <typename T>
void attention(const Attention& it) {
    const Items items(it);
#pragma omp parallel
    {
        std::vector<float> scratch;
        attention_in_team<T>(it, items, scratch);
    }
}

}  // namespace
