// A layer: a cell over a whole sequence, forward and backward, with all that need not wait for the state.
#pragma once

#include "threads.h"
#include "unroll.h"

namespace unrolled {

struct Results {
  float *d_x, *d_w_ih, *d_bias_ih, *d_w_hh, *d_bias_hh;
  int64_t vocabulary;  // rows of the table of input parts
};

// Compiled for each cell in a file of its own (rnn.cpp, lstm.cpp, gru.cpp).
template <class Cell>
void forward(const Call& call, float* outputs, float* kept, float* const final[2]);
template <class Cell>
void backward(const Call& call, const Gradients& g, const Results& to);

}  // namespace unrolled
