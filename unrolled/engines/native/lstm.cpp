#include "layer_body.h"

namespace unrolled {

template void forward<Lstm>(const Call&, float*, float*, float* const[2]);
template void backward<Lstm>(const Call&, const Gradients&, const Results&);

}  // namespace unrolled
