package testbed

import (
	"context"
	"fmt"
	"time"
)

// WaitFor calls ready every 10 ms until it returns nil. After the time limit it returns ready's last error.
func WaitFor(ctx context.Context, atMost time.Duration, ready func() error) error {
	return WaitEvery(ctx, 10*time.Millisecond, atMost, ready)
}

// WaitEvery is WaitFor with another interval.
func WaitEvery(ctx context.Context, interval, atMost time.Duration, ready func() error) error {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", atMost, err)
		case <-tick.C:
		}
	}
}
