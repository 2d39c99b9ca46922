// RTNeural's static model of one recurrent layer, with the weights of a torch.nn.GRU or LSTM: what its step takes.
//
// rtneural.py builds this with -DLAYER=GRU or LSTM, and -DSIZE, and says how. The argument is a file of JSON with the
// weights, as in the layer's state_dict(), and a signal "x", a list of samples. Commands on stdin, a line each:
//   check     the outputs for the signal, from a fresh state, a line for each sample
//   time N    seconds of processor time per step of N steps
//   tail N    seconds of the 99.9th percentile and of the slowest of N steps, each timed alone
#include <RTNeural.h>
#include <json.hpp>
#include <torch_helpers.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string>
#include <vector>

#define NAME_(a, b) a##b
#define NAME(a, b) NAME_(a, b)

using Layer = RTNeural::NAME(LAYER, LayerT)<float, SIZE, SIZE>;
using Clock = std::chrono::steady_clock;

static double seconds(Clock::duration span) { return std::chrono::duration<double>(span).count(); }

int main(int, char** arguments)
{
    const auto json = nlohmann::json::parse(std::ifstream(arguments[1]));
    static RTNeural::ModelT<float, SIZE, SIZE, Layer> model; // too large for the stack
    RTNeural::torch_helpers::NAME(load, LAYER)<float>(json, "", model.get<0>());
    model.reset();
    const std::vector<std::vector<float>> signal = json.at("x");
    size_t at = 0;
    float sink = 0;
    const auto step = [&] {
        alignas(64) static float sample[SIZE];
        std::copy(signal[at].begin(), signal[at].end(), sample);
        at = at + 1 < signal.size() ? at + 1 : 0;
        sink += model.forward(sample);
    };
    std::string command;
    while(std::cin >> command)
    {
        if(command == "check")
        {
            model.reset();
            for(at = 0; at < signal.size();)
            {
                alignas(64) float sample[SIZE];
                std::copy(signal[at].begin(), signal[at].end(), sample);
                model.forward(sample);
                for(int i = 0; i < SIZE; ++i)
                    std::printf("%.9g ", model.getOutputs()[i]);
                std::printf("\n");
                ++at;
            }
            at = 0;
        }
        long count = 0;
        if(command == "time")
        {
            std::cin >> count;
            const auto begin = std::clock();
            for(long i = 0; i < count; ++i)
                step();
            const auto ticks = static_cast<double>(std::clock() - begin);
            std::printf("%.9g\n", ticks / CLOCKS_PER_SEC / static_cast<double>(count));
        }
        if(command == "tail")
        {
            std::cin >> count;
            std::vector<double> spans;
            for(long i = 0; i < count; ++i)
            {
                const auto begin = Clock::now();
                step();
                spans.push_back(seconds(Clock::now() - begin));
            }
            std::sort(spans.begin(), spans.end());
            std::printf("%.9g %.9g\n", spans[static_cast<size_t>(0.999 * static_cast<double>(count - 1))], spans.back());
        }
        std::fflush(stdout);
    }
    return sink == 12345.f; // so that no step is left out
}
