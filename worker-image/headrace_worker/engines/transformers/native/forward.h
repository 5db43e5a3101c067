// A whole forward pass of Llama and its like over the new tokens of many sequences, in one parallel region: a call, or a team of threads, for each
// operation costs more than many of the operations themselves.

#pragma once

#include <omp.h>

#include <cmath>
#include <limits>
#include <vector>

#include "attention.h"
#include "matmul.h"

struct Layer {
    const void *before_attention, *before_mlp;  // weights of the normalisations
    Linear qkv, out, gate_up, down;             // gates are the first half of the outputs, ups the second
    void *keys, *values;
    int64_t window;
};

// What one pass is told. Buffers have room for `room` rows: as many as there are tokens, and up to the next whole tile of 16 more that are anybody's.
// All but `qkv` are in panels, with a row between two of them.
struct Pass {
    const Attention* attention;  // query, key, value and out lie in the buffers
    const Layer* layers;
    const Linear* head;
    const void *embedding, *norm;
    const int64_t* tokens;
    float* residual;
    void *normed, *qkv, *attended, *gated;
    float* logits;       // [sequences, vocabulary], after the last token of each; or null
    int64_t* likeliest;  // the first of each sequence's greatest; -1 where there is none, because numbers are not finite
    int64_t layer_count, width, room;
    float epsilon;
};

#ifdef HAS_FLOAT32_PRODUCTS

namespace {

template <typename T>
void normalise(const Panels<float>& from, const Panels<T>& to, int64_t row, const T* weight, int64_t width, float epsilon) {
    Lanes squares{};
    for (int64_t i = 0; i < width; i += LANES) squares += load(from.at(row, i)) * load(from.at(row, i));
    const float scale = 1.0f / std::sqrt(sum(squares) / float(width) + epsilon);
    for (int64_t i = 0; i < width; i += LANES) store(to.at(row, i), load(from.at(row, i)) * scale * load(weight + i));
}

// The greatest number that a thread has seen of a row.
struct Greatest {
    float value = -std::numeric_limits<float>::infinity();
    int64_t place = -1;
    bool broken = false;  // a number that is none was among them

    void see(float other, int64_t at) {
        if (other > value || (other == value && at < place)) value = other, place = at;
    }
};

template <typename T>
class Run {
  public:
    explicit Run(const Pass& it)
        : it(it), attention(*it.attention), items(attention), claims(size_t(it.layer_count) * 4 + 1), best(attention.sequences),
          residual{it.residual, (it.room + 1) * BLOCK}, normed{(T*)it.normed, (it.room + 1) * BLOCK},
          attended{(T*)it.attended, (it.room + 1) * BLOCK}, gated{(T*)it.gated, (it.room + 1) * BLOCK} {}

    void go() {
#pragma omp parallel
        work();
        for (int s = 0; s < attention.sequences; s++)
            it.likeliest[s] = !best[s].broken && std::isfinite(best[s].value) ? best[s].place : -1;
    }

  private:
    const Pass& it;
    const Attention& attention;
    const Items items;
    std::vector<std::atomic<int64_t>> claims;
    std::vector<Greatest> best;
    const Panels<float> residual;
    const Panels<T> normed, attended, gated;

    void work() {
        std::vector<float> scratch;
        const int threads = omp_get_num_threads();
        int64_t rows = attention.starts[attention.sequences];
        auto claim = claims.begin();
        T* const qkv = (T*)it.qkv;
        Arithmetic<T>::begin();
        embed(rows);
        for (int64_t index = 0; index < it.layer_count; index++) {
            const Layer& layer = it.layers[index];
            normalise_all(rows, layer.before_attention);
            product<1>(normed, rows, layer.qkv, *claim++, threads, [&](int64_t first, int count, int64_t column, auto& sums) {
                each_vector(first, count, column, layer.qkv, [&](int64_t row, int64_t at, int from, Lanes bias) {
                    store(qkv + row * attention.query_token + at, load(sums[0] + from) + bias);
                });
            });
#pragma omp barrier
            Attention here = attention;
            here.keys = layer.keys, here.values = layer.values, here.window = int32_t(layer.window);
            attention_in_team<T>(here, items, scratch);
            if (index == it.layer_count - 1 && rows > attention.sequences) {
                keep_last();
                rows = attention.sequences;
            }
            add_product(attended, rows, layer.out, *claim++, threads);
            normalise_all(rows, layer.before_mlp);
            product<2>(normed, rows, layer.gate_up, *claim++, threads, [&](int64_t first, int count, int64_t column, auto& sums) {
                const int64_t width = layer.gate_up.outputs / 2;
                const T* const biases = (const T*)layer.gate_up.bias;
                each_vector(first, count, column, layer.gate_up, [&](int64_t row, int64_t at, int from, Lanes bias) {
                    const Lanes gate = load(sums[0] + from) + bias;
                    const Lanes up = load(sums[1] + from) + (biases == nullptr ? Lanes{} : load(biases + width + at));
                    store(gated.at(row, at), silu<T>(gate) * up);
                });
            });
#pragma omp barrier
            add_product(gated, rows, layer.down, *claim++, threads);
        }
        normalise_all(rows, it.norm);
        choose(*claim, threads);
        Arithmetic<T>::end();
    }

    void embed(int64_t rows) {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t i = 0; i < it.width; i += LANES)
                store(residual.at(row, i), load((const T*)it.embedding + it.tokens[row] * it.width + i));
    }

    void normalise_all(int64_t rows, const void* weight) {
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++)
            normalise(residual, normed, row, (const T*)weight, it.width, it.epsilon);
    }

    // residual += rows times a layer
    void add_product(const Panels<T>& from, int64_t rows, const Linear& layer, std::atomic<int64_t>& claimed, int threads) {
        product<1>(from, rows, layer, claimed, threads, [&](int64_t first, int count, int64_t column, auto& sums) {
            each_vector(first, count, column, layer, [&](int64_t row, int64_t at, int from, Lanes bias) {
                float* to = residual.at(row, at);
                store(to, load(to) + load(sums[0] + from) + bias);
            });
        });
#pragma omp barrier
    }

    // Of the last layer only what comes after the last token of each sequence is wanted.
    void keep_last() {
#pragma omp single
        for (int s = 0; s < attention.sequences; s++) {
            const int64_t last = attention.starts[s + 1] - 1, width = int64_t(attention.heads) * attention.size;
            for (int64_t i = 0; i < width; i += BLOCK) std::copy_n(attended.at(last, i), BLOCK, attended.at(s, i));
            for (int64_t i = 0; i < it.width; i += BLOCK) std::copy_n(residual.at(last, i), BLOCK, residual.at(s, i));
        }
    }

    void choose(std::atomic<int64_t>& claimed, int threads) {
        const Linear& head = *it.head;
        std::vector<Greatest> seen(best.size());
        product<1>(normed, attention.sequences, head, claimed, threads, [&](int64_t first, int count, int64_t column, auto& sums) {
            const int width = int(std::min<int64_t>(BLOCK, head.outputs - column));
            for (int r = 0; r < count; r++) {
                float* of = sums[0] + r * BLOCK;
                if (head.bias != nullptr)
                    for (int i = 0; i < width; i++) of[i] += read(((const T*)head.bias)[column + i]);
                if (it.logits != nullptr) std::copy_n(of, width, it.logits + (first + r) * head.outputs + column);
                std::fill(of + width, of + BLOCK, -std::numeric_limits<float>::infinity());
                see(seen[first + r], of, column);
            }
        });
#pragma omp critical
        for (size_t s = 0; s < best.size(); s++) {
            best[s].broken |= seen[s].broken;
            if (seen[s].place >= 0) best[s].see(seen[s].value, seen[s].place);
        }
    }

    static void see(Greatest& seen, const float* numbers, int64_t column) {
        const Lanes first = load(numbers), second = load(numbers + LANES);
        const Lanes greater = first > second ? first : second;
        const Integers odd = (first != first) | (second != second) | (greater > seen.value);
        if (!any(odd)) return;
        for (int i = 0; i < BLOCK; i++) {
            seen.broken |= numbers[i] != numbers[i];
            if (numbers[i] > seen.value) seen.value = numbers[i], seen.place = column + i;
        }
    }

    // Each vector of sums: its row, the output where it begins, where it lies, and the bias.
    template <typename Use>
    static void each_vector(int64_t first, int count, int64_t column, const Linear& layer, const Use& use) {
        for (int v = 0; v < BLOCK && column + v < layer.outputs; v += LANES) {
            const Lanes bias = layer.bias == nullptr ? Lanes{} : load((const T*)layer.bias + column + v);
            for (int r = 0; r < count; r++) use(first + r, column + v, r * BLOCK + v, bias);
        }
    }
};

// A layer alone, for models that run in another way; rows and sums are in panels.
template <typename T>
void linear(const Panels<T>& rows, const Panels<T>& out, int64_t count, const Linear& layer) {
    std::atomic<int64_t> claimed{0};
#pragma omp parallel
    {
        Arithmetic<T>::begin();
        product<1>(rows, count, layer, claimed, omp_get_num_threads(), [&](int64_t first, int size, int64_t column, auto& sums) {
            for (int r = 0; r < size; r++)
                for (int64_t i = 0; i < BLOCK; i++) {
                    const bool biased = layer.bias != nullptr && column + i < layer.outputs;
                    write(*out.at(first + r, column + i), sums[0][r * BLOCK + i] + (biased ? read(((const T*)layer.bias)[column + i]) : 0.0f));
                }
        });
        Arithmetic<T>::end();
    }
}

}  // namespace

#endif
