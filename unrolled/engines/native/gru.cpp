#include "layer_body.h"

namespace unrolled {

template void forward<Gru>(const Call&, float*, float*, float* const[2]);
template void backward<Gru>(const Call&, const Gradients&, const Results&);

}  // namespace unrolled
