// Load on a bidirectional gRPC stream: messages that stand in files are sent in turn, and each waits for its acknowledgement.
//
//	streams -target 127.0.0.1:9091 -method /package.Service/Method -key KEY -streams 8 -window 4 -seconds 6 FILE...
//
// Prints one line of JSON: messages acknowledged, seconds, and percentiles of the time from sending to acknowledgement in ms.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"sort"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
)

// raw sends bytes as they are, and keeps nothing of what comes.
type raw struct{}

func (raw) Marshal(v any) ([]byte, error)      { return v.([]byte), nil }
func (raw) Unmarshal(data []byte, v any) error { return nil }
func (raw) Name() string                       { return "proto" }

func main() {
	target := flag.String("target", "", "host:port")
	method := flag.String("method", "", "full name")
	key := flag.String("key", "", "write key")
	streams := flag.Int("streams", 1, "streams, each on a connection of its own")
	window := flag.Int("window", 4, "messages of a stream that wait for their acknowledgement")
	seconds := flag.Float64("seconds", 5, "how long")
	flag.Parse()
	var bodies [][]byte
	for _, name := range flag.Args() {
		body, err := os.ReadFile(name)
		if err != nil {
			log.Fatal(err)
		}
		bodies = append(bodies, body)
	}
	start := time.Now()
	end := start.Add(time.Duration(*seconds * float64(time.Second)))
	taken := make([][]float64, *streams)
	var all sync.WaitGroup
	for n := range taken {
		all.Add(1)
		go func() {
			defer all.Done()
			latencies, err := one(*target, *method, *key, bodies, n, *window, end)
			if err != nil {
				log.Fatal(err)
			}
			taken[n] = latencies
		}()
	}
	all.Wait()
	took := time.Since(start).Seconds()
	var latencies []float64
	for _, some := range taken {
		latencies = append(latencies, some...)
	}
	sort.Float64s(latencies)
	at := func(share float64) float64 { return latencies[int(float64(len(latencies)-1)*share)] }
	said, _ := json.Marshal(map[string]float64{"requests": float64(len(latencies)), "seconds": took, "p50_ms": at(0.5), "p99_ms": at(0.99)})
	fmt.Println(string(said))
}

func one(target, method, key string, bodies [][]byte, turn, window int, end time.Time) ([]float64, error) {
	connection, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer connection.Close()
	ctx := metadata.AppendToOutgoingContext(context.Background(), "authorization", "Bearer "+key)
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.ForceCodec(raw{}))
	if err != nil {
		return nil, err
	}
	sent := make(chan time.Time, window)
	var latencies []float64
	send := func() error {
		turn++
		sent <- time.Now()
		return stream.SendMsg(bodies[turn%len(bodies)])
	}
	for range window {
		if err := send(); err != nil {
			return nil, err
		}
	}
	var answer []byte
	for len(sent) > 0 {
		if err := stream.RecvMsg(&answer); err != nil {
			return nil, err
		}
		latencies = append(latencies, float64(time.Since(<-sent).Microseconds())/1000)
		if time.Now().Before(end) {
			if err := send(); err != nil {
				return nil, err
			}
		}
	}
	return latencies, stream.CloseSend()
}
