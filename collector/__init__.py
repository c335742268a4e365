"""The front door: takes events over REST and gRPC, checks their top level, and answers once Kafka has them."""
