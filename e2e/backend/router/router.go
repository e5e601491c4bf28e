// Package router is the gRPC service that Healthgate is shown in front of. It recommends routes to drive:
//
//	service Router {
//	  // Recommend returns the numbers of the routes that pass the points, each once. A point is a list of its latitude and longitude in
//	  // degrees; at least one is required.
//	  rpc Recommend(google.protobuf.ListValue) returns (google.protobuf.ListValue);
//	}
//
// Its messages are well-known types, so it needs no generated code.
package router

import (
	"context"
	"math"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/structpb"
)

const (
	// Name is the name of the service.
	Name = "router.Router"
	// Method is the path of its method.
	Method = "/router.Router/Recommend"
)

// count is how many routes there are; each is a band of longitude that is 360/count degrees wide.
const count = 360

// Point is a position on the WGS 84 ellipsoid.
type Point struct{ Latitude, Longitude float64 }

// Request returns the message for some points.
func Request(points ...Point) *structpb.ListValue {
	request := &structpb.ListValue{}
	for _, p := range points {
		point := []*structpb.Value{structpb.NewNumberValue(p.Latitude), structpb.NewNumberValue(p.Longitude)}
		request.Values = append(request.Values, structpb.NewListValue(&structpb.ListValue{Values: point}))
	}
	return request
}

// Recommend calls the service.
func Recommend(ctx context.Context, conn grpc.ClientConnInterface, points ...Point) (routes []int, err error) {
	reply := &structpb.ListValue{}
	err = conn.Invoke(ctx, Method, Request(points...), reply)
	for _, route := range reply.GetValues() {
		routes = append(routes, int(route.GetNumberValue()))
	}
	return routes, err
}

// Register makes a server answer calls of the service by a function, such as Routes.
func Register(server grpc.ServiceRegistrar, answer func(*structpb.ListValue) (*structpb.ListValue, error)) {
	handler := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		request := &structpb.ListValue{}
		if err := decode(request); err != nil {
			return nil, err
		}
		return answer(request)
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: Name, HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{MethodName: "Recommend", Handler: handler}},
	}, nil)
}

// Routes returns the number of each route that a point lies on, in the order of the points and each once.
func Routes(points *structpb.ListValue) (*structpb.ListValue, error) {
	if len(points.GetValues()) == 0 {
		return nil, status.Error(codes.InvalidArgument, "the list of points is empty, give at least one")
	}
	reply := &structpb.ListValue{}
	var seen [count]bool
	for i, value := range points.GetValues() {
		point := value.GetListValue().GetValues()
		if len(point) != 2 {
			return nil, status.Errorf(codes.InvalidArgument, "point %d is not a list of latitude and longitude", i)
		}
		latitude, longitude := point[0].GetNumberValue(), point[1].GetNumberValue()
		// Written so that NaN fails too.
		if !(math.Abs(latitude) <= 90) || !(math.Abs(longitude) <= 180) {
			return nil, status.Errorf(codes.InvalidArgument, "point %d: %v, %v is not a place on Earth", i, latitude, longitude)
		}
		if route := int(longitude+180) % count; !seen[route] {
			seen[route] = true
			reply.Values = append(reply.Values, structpb.NewNumberValue(float64(route)))
		}
	}
	return reply, nil
}
