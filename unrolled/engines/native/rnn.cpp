#include "layer_body.h"

namespace unrolled {

template void forward<Rnn<false>>(const Call&, float*, float*, float* const[2]);
template void backward<Rnn<false>>(const Call&, const Gradients&, const Results&);
template void forward<Rnn<true>>(const Call&, float*, float*, float* const[2]);
template void backward<Rnn<true>>(const Call&, const Gradients&, const Results&);

}  // namespace unrolled
