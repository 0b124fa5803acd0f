// Threads that work in step with each other for some milliseconds.
//
// They meet many thousand times a second, which is fast only while each has a core of its own. Where another program takes
// one, they would mostly wait (measured with one busy program on two cores: a tenth to a half of the speed of one thread
// alone). So they notice, the first one goes on alone, and threads are tried again a while later.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <exception>
#include <functional>
#include <thread>
#include <utility>
#include <vector>

namespace unrolled {

class Team {
 public:
  using Clock = std::chrono::steady_clock;

  // One of the threads. All make the same steps, in each the same meetings, at least two.
  class Worker {
   public:
    Worker(Team& team, int number) : team(team), number(number), members(team.members), last(Clock::now()) {}

    // To be asked at the beginning of each step; false where this worker is no longer needed.
    bool goes_on() {
      members = team.members;
      begun = false;
      return number < members;
    }
    // [from, to) of `all`, which is this worker's part.
    std::pair<int64_t, int64_t> share(int64_t all) const {
      return {all * number / members, all * (number + 1) / members};
    }
    // Waits until all are here.
    void meet() {
      if (members == 1) return;
      const auto came = Clock::now();
      worked += came - last;
      // once all have begun this step, so that all see it when they begin the next
      if (number == 0 && begun && team.crowded) team.members = 1;
      begun = true;
      team.wait(members);
      last = Clock::now();
      if (last - came > std::chrono::microseconds(50)) waited += last - came;
      if (waited > worked + std::chrono::milliseconds(2)) team.crowded = true;
    }

   private:
    Team& team;
    const int number;
    int members;
    bool begun = false;  // this step's first meeting is over
    Clock::time_point last;  // when the last meeting was over
    Clock::duration worked{}, waited{};
  };

  // Runs work once for each of `wanted` workers, or of fewer where the system gives no more threads. What one of them
  // throws is thrown here, once all have ended; the others end at their next meeting.
  static void run(int wanted, const std::function<void(Worker)>& work) {
    Team team;
    const auto guarded = [&](int number) {
      try {
        work({team, number});
      } catch (const Broken&) {
      } catch (...) {
        team.fail();
      }
    };
    std::vector<std::thread> threads;
    threads.reserve(wanted);
    try {
      for (int i = 1; i < wanted; ++i)
        threads.emplace_back([&, i] {
          team.members.wait(0);
          guarded(i);
        });
    } catch (const std::exception&) {  // no thread, or no memory for it
    }
    team.members = int(threads.size()) + 1;
    team.members.notify_all();
    guarded(0);
    for (auto& thread : threads) thread.join();
    if (team.error) std::rethrow_exception(team.error);
    if (wanted > 1) pauses().note(team.crowded);
  }

  // Whether other programs took cores from a team a moment ago. Such a pause lasts the longer the more follow each other.
  static bool crowded_lately() { return Clock::now().time_since_epoch().count() < pauses().until; }

 private:
  void wait(int n) {  // spins, and after some tens of microseconds sleeps
    const uint32_t now = meetings.load(std::memory_order_acquire);
    if (broken.load(std::memory_order_acquire)) throw Broken{};
    if (arrived.fetch_add(1, std::memory_order_acq_rel) + 1 == n) {
      arrived.store(0, std::memory_order_relaxed);
      meetings.store(now + 1, std::memory_order_release);
      meetings.notify_all();
      return;
    }
    for (int i = 0; i < 2000 && meetings.load(std::memory_order_acquire) == now; ++i) relax();
    meetings.wait(now, std::memory_order_acquire);
    if (broken.load(std::memory_order_acquire)) throw Broken{};
  }
  struct Broken {};  // unwinds a worker whose team will never be complete again
  // Keeps the exception that is being handled, and wakes all who wait: broken is seen before the new number of meetings.
  void fail() {
    if (!failed.exchange(true)) error = std::current_exception();
    broken.store(true, std::memory_order_release);
    meetings.fetch_add(1, std::memory_order_acq_rel);
    meetings.notify_all();
  }
  static void relax() {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("isb");
#endif
  }
  struct Pauses {
    std::atomic<Clock::rep> until{0};
    std::atomic<int> milliseconds{0};
    void note(bool crowded) {
      milliseconds = crowded ? std::clamp(2 * milliseconds, 16, 256) : 0;
      until = (Clock::now() + std::chrono::milliseconds(milliseconds)).time_since_epoch().count();
    }
  };
  static Pauses& pauses() {
    static Pauses kept;
    return kept;
  }

  std::atomic<int> members{0};  // who take part; 0 until all threads are there
  std::atomic<bool> crowded{false}, failed{false}, broken{false};
  std::exception_ptr error;  // of the first that failed
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<uint32_t> meetings{0};
};

}  // namespace unrolled
