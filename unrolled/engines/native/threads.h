// PyTorch's own threads, behind an interface that needs none of its headers. Defined in unroll.cpp.
#pragma once

#include <cstdint>
#include <functional>

namespace unrolled {

constexpr double small_work = 3e5;  // multiplications that one thread does sooner than two agree on them

int64_t threads();

// f(i) for i in [0, n), by several threads where there is enough to do.
void parallel(int64_t n, double multiplications, const std::function<void(int64_t)>& f);

}  // namespace unrolled
