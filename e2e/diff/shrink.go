package main

import (
	"healthgate/e2e/walk"
	"slices"
	"time"
)

// shrink returns a shorter list of events that still fails, the shortest that it finds until the time is over: first an end of
// the list, then with parts left out, ever smaller ones.
func shrink(events []walk.Event, fails func([]walk.Event) bool, atMost time.Duration) []walk.Event {
	until := time.Now().Add(atMost)
	for n := 1; n < len(events) && time.Now().Before(until); n *= 2 {
		if end := events[len(events)-n:]; fails(end) {
			events = end
			break
		}
	}
	for size := len(events) / 2; size > 0; {
		shorter := false
		for at := 0; at+size <= len(events) && time.Now().Before(until); {
			without := slices.Concat(events[:at], events[at+size:])
			if len(without) > 0 && fails(without) {
				events, shorter = without, true
			} else {
				at += size
			}
		}
		if !shorter || size > len(events) {
			size /= 2
		}
	}
	return slices.Clone(events)
}
