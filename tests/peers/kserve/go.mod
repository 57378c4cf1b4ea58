module flywheel/peers/kserve

go 1.25
