// Package router is the gRPC service that Healthgate is shown in front of. router.proto describes it.
package router

import (
	"context"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

//go:generate go run github.com/bufbuild/buf/cmd/buf@v1.59.0 generate

const (
	// Name is the name of the service.
	Name = "router.Router"
	// Method is the path of its method.
	Method = "/router.Router/Recommend"
)

// count is how many routes there are; each is a band of longitude that is 360/count degrees wide.
const count = 360

// Recommend calls the service.
func Recommend(ctx context.Context, conn grpc.ClientConnInterface, points ...*Point) (routes []uint32, err error) {
	reply := &RecommendResponse{}
	err = conn.Invoke(ctx, Method, &RecommendRequest{Points: points}, reply)
	return reply.GetRoutes(), err
}

// Register makes a server answer calls of the service by a function, such as Routes.
func Register(server grpc.ServiceRegistrar, answer func(*RecommendRequest) (*RecommendResponse, error)) {
	handler := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		request := &RecommendRequest{}
		if err := decode(request); err != nil {
			return nil, err
		}
		return answer(request)
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: Name, HandlerType: (*any)(nil), Metadata: "router.proto",
		Methods: []grpc.MethodDesc{{MethodName: "Recommend", Handler: handler}},
	}, nil)
}

// Routes returns the number of each route that a point lies on, in the order of the points and each once.
func Routes(request *RecommendRequest) (*RecommendResponse, error) {
	if len(request.GetPoints()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "points: is empty, give at least one")
	}
	response := &RecommendResponse{}
	var seen [count]bool
	for i, point := range request.GetPoints() {
		latitude, longitude := point.GetLatitude(), point.GetLongitude()
		// Written so that NaN fails too.
		if !(math.Abs(latitude) <= 90) || !(math.Abs(longitude) <= 180) {
			return nil, status.Errorf(codes.InvalidArgument, "points[%d]: %v, %v is not a place on Earth", i, latitude, longitude)
		}
		if route := int(longitude+180) % count; !seen[route] {
			seen[route] = true
			response.Routes = append(response.Routes, uint32(route))
		}
	}
	return response, nil
}
